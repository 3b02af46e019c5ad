"""Statistics of a table of runs: intervals, paired differences, corrections, effects.

Each cell of an ablation is run with n seeds and scored on m items. Both vary: a different seed gives a different
adapter, and different items give a different accuracy. A difference between two cells is established when it is large
compared with both, after a correction for the number of comparisons. ``docs/statistics.md`` has the models, the
measured coverage of every interval, and when to trust which result.

All functions are pure functions of numpy arrays. They import only numpy and ``scipy.special``, since the import of
``scipy.stats`` takes longer than a whole report may take. The tests compare the results with ``scipy.stats``.
"""

from __future__ import annotations

from smoa_lightning.ablation.statistics.differences import (
    Difference,
    MeanSquares,
    crossed_difference,
    mean_squares,
    paired_difference,
    standard_error,
)
from smoa_lightning.ablation.statistics.effects import SeedEffect, seed_effect
from smoa_lightning.ablation.statistics.equal_level import at_level, common_level
from smoa_lightning.ablation.statistics.grid import GridEffects, LevelEffect, Term, grid_effects
from smoa_lightning.ablation.statistics.intervals import Estimate, mean_interval
from smoa_lightning.ablation.statistics.iqm import interquartile_mean
from smoa_lightning.ablation.statistics.item_differences import (
    accuracy_difference,
    item_difference,
    mean_of_accuracy_differences,
    mean_of_differences,
)
from smoa_lightning.ablation.statistics.items import McNemar, mcnemar
from smoa_lightning.ablation.statistics.multiple import Corrected, corrected, holm, holm_levels
from smoa_lightning.ablation.statistics.pairing import Paired, Scores, Shared, pair, shared_scores
from smoa_lightning.ablation.statistics.power import (
    PlannedTest,
    Variances,
    assumed_variances,
    detectable_difference,
    items_to_detect,
    power_of,
    seeds_to_detect,
    variances_of,
)
from smoa_lightning.ablation.statistics.seed_variance import Pooled, pooled_for_differences, pooled_for_gains
from smoa_lightning.ablation.statistics.verdict import MINIMUM_SEEDS, Verdict, counted, verdict
from smoa_lightning.common.item_statistics import by_groups, common_groups, perplexity_scores

__all__ = [
    "MINIMUM_SEEDS",
    "Corrected",
    "Difference",
    "Estimate",
    "GridEffects",
    "LevelEffect",
    "McNemar",
    "MeanSquares",
    "Paired",
    "PlannedTest",
    "Pooled",
    "Scores",
    "SeedEffect",
    "Shared",
    "Term",
    "Variances",
    "Verdict",
    "accuracy_difference",
    "assumed_variances",
    "at_level",
    "by_groups",
    "common_groups",
    "common_level",
    "corrected",
    "counted",
    "crossed_difference",
    "detectable_difference",
    "grid_effects",
    "holm",
    "holm_levels",
    "interquartile_mean",
    "item_difference",
    "items_to_detect",
    "mcnemar",
    "mean_interval",
    "mean_of_accuracy_differences",
    "mean_of_differences",
    "mean_squares",
    "pair",
    "paired_difference",
    "perplexity_scores",
    "pooled_for_differences",
    "pooled_for_gains",
    "power_of",
    "seed_effect",
    "seeds_to_detect",
    "shared_scores",
    "standard_error",
    "variances_of",
    "verdict",
]

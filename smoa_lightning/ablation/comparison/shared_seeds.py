"""The seeds that groups of runs share with the baseline: only they are compared, and the others are named."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from smoa_lightning.ablation.comparison.scored_run import ScoredRun
from smoa_lightning.ablation.comparison.sides import Side, labels
from smoa_lightning.common.errors import UserError


def paired_sides(side: Side, baseline: Side) -> tuple[Side, Side]:
    """Return a side and the baseline with the runs of the seeds that both have.

    Most base models have no seed, and two single runs are compared with any seeds.

    Raises:
        UserError: They have no seed in common.
    """
    if side.is_for_all_seeds or baseline.is_for_all_seeds or len(side.runs) == len(baseline.runs) == 1:
        return side, baseline
    shared = side.by_seed.keys() & baseline.by_seed.keys()
    if not shared:
        seeds = [listed(each.by_seed) for each in (side, baseline)]
        raise UserError(
            f"compare: {side.label} has the seeds {seeds[0]} and {baseline.label} has {seeds[1]}: run both with the "
            "same seeds"
        )
    return only(side, shared), only(baseline, shared)


def run_pairs(side: Side, baseline: Side) -> list[tuple[ScoredRun, ScoredRun]]:
    """Return the runs of both sides with the same seed; a base model without a seed is paired with every run."""
    one, two = paired_sides(side, baseline)
    if one.is_for_all_seeds or two.is_for_all_seeds:
        return [(mine, theirs) for mine in one.runs for theirs in two.runs]
    return list(zip(one.runs, two.runs, strict=True))


def shared_seeds(sides: Sequence[Side]) -> tuple[list[Side], str]:
    """Return the sides with the runs that a comparison with the baseline uses, and a sentence about the others.

    Args:
        sides: The sides; the first is the baseline.

    Raises:
        UserError: A side has no seed in common with the baseline.
    """
    baseline, pairs = sides[0], [paired_sides(side, sides[0]) for side in sides[1:]]
    used = {run.seed for _, theirs in pairs for run in theirs.runs}
    kept = [only(baseline, used), *(mine for mine, _ in pairs)]
    names = iter(labels([side.runs for side in kept if not side.is_base]))
    kept = [side if side.is_base else replace(side, label=next(names)) for side in kept]
    parts = []
    for old, new in zip(sides, kept, strict=True):
        if len(new.runs) < len(old.runs):
            parts.append(f"{_seeds(old.by_seed.keys() - new.by_seed.keys())} of {new.label}")
    sentence = (
        f"Only seeds that a run and its baseline share are compared; left out: {', '.join(parts)}." if parts else ""
    )
    for side, (_, theirs) in zip(kept[1:], pairs, strict=True):
        if len(theirs.runs) < len(kept[0].runs):
            sentence += f" {side.label} is compared with {kept[0].label} on {_seeds(theirs.by_seed)} only."
    return kept, sentence.strip()


def only(side: Side, seeds: Collection[int]) -> Side:
    """Return a side with the runs of some seeds."""
    return replace(side, runs=tuple(run for run in side.runs if run.seed in seeds))


def listed(seeds: Collection[int]) -> str:
    """Return seeds with commas."""
    return ", ".join(map(str, sorted(seeds)))


def _seeds(seeds: Collection[int]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {listed(seeds)}"

"""Errors and power of a family of comparisons, with and without a pooled seed variance (tables of docs/statistics.md).

    python -m benchmarks.family_error              # from the root of the project; minutes on one core

Four cells are compared with one baseline, by ``crossed_difference`` and Holm's correction. No cell differs, so each
rejection is an error. The answers and their truths are those of ``tests/ablation/simulation.py``. "noisy" is the same
with a baseline whose seed effect is three times as large.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from smoa_lightning.ablation.statistics import (
    MeanSquares,
    PlannedTest,
    detectable_difference,
    mean_squares,
    seed_variance,
    variances_of,
)
from tests.ablation.family import LEVEL, Family, gain_errors
from tests.ablation.simulation import MEASURED, TRUTHS, Truth, runs

PART = 500  # repeats that are drawn together


def planned_power(n: int, noisy: float, truth: Truth, options: argparse.Namespace) -> tuple[float, float]:
    """Return the difference that a plan promises to detect, and the chance that it is detected; in percent."""
    answers = runs(np.random.default_rng(1), 3 * PART, n, options.items, truth, options.cells, noisy)
    squares = mean_squares((answers[1:] - answers[0]).reshape(-1, n, options.items))
    means = MeanSquares(*(part.mean() for part in squares))
    variances, comparisons = variances_of([(means, n, options.items)]), options.cells - 1
    promised = detectable_difference(n, options.items, variances, PlannedTest(comparisons, options.cells))
    found = Family(answers, seed_variance.PRIOR_DF)
    assert promised is not None
    detected = np.abs(found.values + promised) > found.half(LEVEL / comparisons)
    return 100 * promised, 100 * float(detected.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--cells", type=int, default=5, help="with the baseline")
    parser.add_argument("--weights", type=float, nargs="+", default=[0, 2, 4], help="d0; 0 is the variance of the pair")
    parser.add_argument("--noisy", type=float, nargs="+", default=[1, 3], help="factors of the baseline's seed effect")
    parser.add_argument("--unequal", type=float, default=seed_variance.UNEQUAL, help="Bartlett's p that ends pooling")
    options = parser.parse_args()
    seed_variance.UNEQUAL = options.unequal
    names = [f"d0 = {weight:g}" if weight else "own" for weight in options.weights]
    print("| seeds | baseline | truth | pooled | " + " | ".join(names) + " | plan, detected |")
    print("|---|---|---|---|" + "---|" * (len(names) + 1))
    for n in options.seeds:
        for noisy in options.noisy:
            for name, truth in (TRUTHS | MEASURED).items():
                null = replace(truth, shift=0.0)
                rng, parts = np.random.default_rng(0), range(0, options.repeats, PART)
                families: list[list[Family]] = [[] for _ in options.weights]
                for _ in parts:
                    answers = runs(rng, PART, n, options.items, null, options.cells, noisy)
                    for mine, weight in zip(families, options.weights, strict=True):
                        mine.append(Family(answers, weight))
                found = [np.mean([part.numbers() for part in mine], axis=0) for mine in families]
                shown = [f"{c:.1f}, {e:.1f}, {h / found[0][2]:.2f}, {d / found[0][3]:.2f}" for c, e, h, d in found]
                kept = 100 * np.mean([part.kept.mean() for part in families[-1]])
                promised, detected = planned_power(n, noisy, null, options)
                start = f"| {n} | {'noisy' if noisy > 1 else 'alike'} | {name} | {kept:.0f} | {' | '.join(shown)}"
                print(f"{start} | {promised:.1f}, {detected:.0f} |", flush=True)
    print(
        "\nEach entry: coverage in %, family-wise error in %, half width and detectable difference as shares of the "
        "first column's.\nplan: the difference in points that --plan promises to detect in 80 % of studies, and how "
        "often it is detected."
    )
    print("\n| seeds | gains | correlation | one cell | own | pooled |\n|---|---|---|---|---|---|")
    for n in options.seeds:
        for cells in (3, 5, 9):
            for correlation in (0.0, 0.5, 0.9):
                for noisy in options.noisy:
                    own, pooled = gain_errors(np.random.default_rng(0), n, cells, correlation, noisy)
                    shown = [f"{c:.1f}, {e:.1f}, {h / own[2]:.2f}, {d / own[3]:.2f}" for c, e, h, d in (own, pooled)]
                    start = f"| {n} | {cells} | {correlation} | {'noisy' if noisy > 1 else 'alike'}"
                    print(f"{start} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()

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

from smoa_lightning.ablation.statistics import seed_variance
from tests.ablation.family import Family
from tests.ablation.simulation import MEASURED, TRUTHS, runs

PART = 500  # repeats that are drawn together


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
    print("| seeds | baseline | truth | pooled | " + " | ".join(names) + " |")
    print("|---|---|---|---|" + "---|" * len(names))
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
                print(f"| {n} | {'noisy' if noisy > 1 else 'alike'} | {name} | {kept:.0f} | {' | '.join(shown)} |",
                      flush=True)  # fmt: skip
    print("\nEach entry: coverage in %, family-wise error in %, half width and detectable difference as shares of the "
          "first column's.")  # fmt: skip


if __name__ == "__main__":
    main()

"""Simulated runs with a known difference, and the coverage of each tried interval (table of docs/statistics.md).

    python -m tests.ablation.simulation          # from the root of the project; minutes on one core

The answers are binary and come from a latent sum: the run of cell c with seed s has item i right if

    threshold + item_i + own_ci + common_s + seed_cs + order_si + noise_csi > 0.

All parts are normal. ``item`` is shared by the cells (some items are hard), ``own`` differs between cells (some items
suit one method), and ``seed`` moves a whole run. ``common`` moves the runs of all cells with a seed, and ``order``
moves their answers to an item: these runs see the same rows in the same order. The accuracy over all seeds and items is
Φ(threshold / total sd), so the true difference of two cells is known.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import special, stats

from smoa_lightning.ablation.statistics import (
    crossed_difference,
    mean_squares,
    paired_difference,
    standard_error,
)
from smoa_lightning.ablation.statistics.differences import MeanSquares

from .bootstrap import counts, paired_bootstrap

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Truth:
    """Standard deviations of the latent parts, the threshold, and the second cell's shift of it."""

    seed: float = 0.05
    own: float = 0.5
    noise: float = 0.7
    item: float = 1.0
    threshold: float = 0.0
    shift: float = 0.0
    common: float = 0.0
    order: float = 0.0

    @property
    def total(self) -> float:
        parts = (self.seed, self.own, self.noise, self.item, self.common, self.order)
        return float(np.sqrt(sum(part**2 for part in parts)))

    @property
    def difference(self) -> float:
        """Accuracy of the second cell minus accuracy of the first cell, over all seeds and items."""
        high, low = special.ndtr(np.array([self.threshold + self.shift, self.threshold]) / self.total)
        return float(high - low)


TRUTHS = {
    "seeds do not vary": Truth(seed=0.0),
    "seeds vary a little": Truth(seed=0.03),
    "seeds vary": Truth(seed=0.08),
    "seeds vary much": Truth(seed=0.2),
    "no item suits a cell": Truth(own=0.0, noise=1.0),
    "items suit cells, stable runs": Truth(own=0.8, noise=0.2),
    "accuracies .87 and .88, a true difference": Truth(threshold=1.5, shift=0.1),
}

# As measured on runs of a small pretrained model on a choice task: answers of one cell correlate by .84 between seeds,
# answers of two methods with one seed by .87 to .94, and their accuracies over seeds by .5 to .9.
MEASURED = {
    "measured, methods differ": Truth(item=0.977, own=0.118, order=0.157, noise=0.082, seed=0.012, common=0.018),
    "measured, between": Truth(item=0.980, own=0.089, order=0.165, noise=0.065, seed=0.010, common=0.02),
    "measured, methods agree": Truth(item=0.983, own=0.045, order=0.170, noise=0.045, seed=0.008, common=0.03),
}


def runs(
    rng: np.random.Generator, repeats: int, seeds: int, items: int, truth: Truth, cells: int = 2, noisy: float = 1.0
) -> np.ndarray:
    """Return (cells, repeats, seeds, items) of 0 and 1; all cells but the first have the shift.

    ``noisy`` multiplies the seed effect of the first cell, and its threshold so that its accuracy stays the same.
    """

    def normal(sd: float, *shape: int) -> np.ndarray:
        return np.float32(sd) * rng.standard_normal(shape, dtype=np.float32)

    shared = normal(truth.item, repeats, 1, items)
    if truth.order or truth.common:
        shared = shared + normal(truth.common, repeats, seeds, 1) + normal(truth.order, repeats, seeds, items)
    answers = np.empty((cells, repeats, seeds, items))
    for cell in range(cells):
        mine = replace(truth, seed=truth.seed * (1 if cell else noisy))
        latent = shared + normal(mine.own, repeats, 1, items) + normal(mine.seed, repeats, seeds, 1)
        latent += np.float32(truth.threshold * mine.total / truth.total + (truth.shift if cell else 0))
        answers[cell] = latent + normal(mine.noise, repeats, seeds, items) > 0
    return answers


def coverage(
    method: Callable[[np.ndarray, np.ndarray], Interval], answers: np.ndarray, truth: Truth
) -> tuple[float, float]:
    """Return the share of repeats with the truth in the interval, and the median width; both in percent."""
    ends = [method(cell, baseline) for baseline, cell in zip(*answers, strict=True)]
    found = np.array([(np.nan, np.nan) if low is None else (low, high) for low, high in ends], dtype=float)
    covered = (found[:, 0] <= truth.difference) & (truth.difference <= found[:, 1])
    return 100 * float(covered.mean()), 100 * float(np.nanmedian(found[:, 1] - found[:, 0]))


def crossed_coverage(answers: np.ndarray, truth: Truth) -> float:
    """Return the coverage of ``crossed_difference`` over all repeats, in percent."""
    differences = answers[1] - answers[0]
    error, df = standard_error(mean_squares(differences), *differences.shape[1:])
    half = special.stdtrit(df, 0.975) * error
    return 100 * float((np.abs(differences.mean(axis=(1, 2)) - truth.difference) <= half).mean())


def crossed(cell: np.ndarray, baseline: np.ndarray) -> Interval:
    found = crossed_difference(cell, baseline)
    return found.low, found.high


def bootstrap(cell: np.ndarray, baseline: np.ndarray) -> Interval:
    found = paired_bootstrap(cell, baseline, resamples=500)
    return found.low, found.high


def over_seeds(cell: np.ndarray, baseline: np.ndarray) -> Interval:
    found = paired_difference(cell.mean(axis=1), baseline.mean(axis=1))
    return found.low, found.high


def over_items(cell: np.ndarray, baseline: np.ndarray) -> Interval:
    """A t-interval over items, each averaged over the seeds."""
    found = paired_difference(cell.mean(axis=0), baseline.mean(axis=0))
    return found.low, found.high


def over_pairs(cell: np.ndarray, baseline: np.ndarray) -> Interval:
    """An interval that takes the items of all seeds as independent items."""
    found = paired_difference(cell.ravel(), baseline.ravel())
    return found.low, found.high


def hillis_error(squares: MeanSquares, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The two-way variance with the degrees of freedom of Hillis 2007."""
    total = squares.seeds + np.maximum(squares.items - squares.residual, 0)
    df = total**2 * (n - 1) / np.maximum(squares.seeds, 1e-12) ** 2
    return np.sqrt(total / (n * m)), np.minimum(df, 1e6)


def hillis(cell: np.ndarray, baseline: np.ndarray) -> Interval:
    differences = cell - baseline
    error, df = hillis_error(mean_squares(differences), *differences.shape)
    half = special.stdtrit(df, 0.975) * error
    return differences.mean() - half, differences.mean() + half


def percentile(cell: np.ndarray, baseline: np.ndarray) -> Interval:
    """Percentiles of the differences of resampled seeds and items."""
    differences, rng = cell - baseline, np.random.default_rng(0)
    n, m = differences.shape
    by_seed, by_item = counts(rng, 500, n) / n, counts(rng, 500, m) / m
    low, high = np.quantile(((by_item @ differences.T) * by_seed).sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def coverage_range(error: Callable[..., tuple[np.ndarray, np.ndarray]], n: int) -> tuple[float, float]:
    """Return the smallest and the largest coverage over all shares of the variances, by quadrature.

    The expected mean squares are ``s`` for the seeds, 1 for the residual and 1 + ``i`` for the items. With many items
    only the seeds' mean square is random: s χ²/(n-1), evaluated at its quantiles.
    """
    m, chances = 100_000, (np.arange(500) + 0.5) / 500
    drawn, ones = stats.chi2.ppf(chances, n - 1) / (n - 1), np.ones(500)
    covered = []
    for s in (1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 1000):
        for i in (0, 0.3, 1, 3, 10, 50):
            found, df = error(MeanSquares(s * drawn, (1 + i) * ones, ones), n, m)
            pivot = special.stdtrit(df, 0.975) * found * np.sqrt(n * m / (s + i))
            covered.append(100 * float(np.mean(1 - 2 * special.ndtr(-pivot))))
    return min(covered), max(covered)


METHODS = {
    "t over seeds": over_seeds,
    "t over items": over_items,
    "t over all pairs": over_pairs,
    "Hillis": hillis,
    "percentile bootstrap": percentile,
    "studentised bootstrap": bootstrap,
    "`crossed_difference`": crossed,
}


SLOW = {"percentile bootstrap", "studentised bootstrap"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3000)
    parser.add_argument("--bootstrap-repeats", type=int, default=500, help="fewer, since the bootstraps are slow")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--items", type=int, nargs="+", default=[300])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    options = parser.parse_args()
    print("| seeds | Hillis | `crossed_difference` |\n|---|---|---|")
    for n in (2, 3, 4, 5, 10):
        ranges = [coverage_range(error, n) for error in (hillis_error, standard_error)]
        print(f"| {n} |", " | ".join(f"{least:.1f} to {most:.1f}" for least, most in ranges), "|")
    print()
    print("| seeds x items | truth | sd over seeds |", " | ".join(options.methods), "|")
    print("|---|---|---|" + "---|" * len(options.methods))
    for n in options.seeds:
        for m in options.items:
            for name, truth in TRUTHS.items():
                answers = runs(np.random.default_rng(0), options.repeats, n, m, truth)
                seen = 100 * answers.mean(axis=-1).std(axis=-1, ddof=1).mean()
                some = answers[:, : options.bootstrap_repeats]
                found = [coverage(METHODS[k], some if k in SLOW else answers, truth) for k in options.methods]
                cells = " | ".join(f"{covered:.1f} ({width:.1f})" for covered, width in found)
                print(f"| {n} x {m} | {name} | {seen:.1f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()

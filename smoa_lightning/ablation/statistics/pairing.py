"""Pairing of two cells by seed and item: shared scores are compared, the others are counted."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smoa_lightning.common.errors import UserError


@dataclass(frozen=True)
class Scores:
    """The scores of one cell.

    Args:
        values: (n, m), one row for each seed, one column for each item; 1 and 0 for right and wrong, or any score of an
            item. nan is a missing score.
        seeds: n names of the rows.
        items: m names of the columns.

    Raises:
        UserError: Names and shape do not fit, a name appears twice, or a score is infinite.
    """

    values: NDArray[np.float64]
    seeds: tuple[Hashable, ...]
    items: tuple[Hashable, ...]

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        if values.shape != (len(self.seeds), len(self.items)):
            raise UserError(
                f"the scores have the shape {values.shape}, but {len(self.seeds)} seeds and {len(self.items)} items "
                f"need the shape ({len(self.seeds)}, {len(self.items)})"
            )
        for name, labels in (("seed", self.seeds), ("item", self.items)):
            if len(set(labels)) < len(labels):
                twice = next(label for label in labels if labels.count(label) > 1)
                raise UserError(f"the scores of a cell have the {name} {twice!r} twice: give each {name} once")
        if np.isinf(values).any():
            raise UserError("the score of an item is infinite: use nan for a missing score")
        object.__setattr__(self, "values", values)


@dataclass(frozen=True)
class Paired:
    """The seeds and items that two cells share.

    Args:
        cell: (n, m) scores of the cell.
        baseline: (n, m) scores of the baseline, with the same seeds and items.
        seeds: The n seeds.
        items: The m items.
        dropped_seeds: Seeds that only one of the cells has.
        dropped_items: Number of items that lack a score in one of the cells, in any shared seed.
    """

    cell: NDArray[np.float64]
    baseline: NDArray[np.float64]
    seeds: tuple[Hashable, ...]
    items: tuple[Hashable, ...]
    dropped_seeds: tuple[Hashable, ...]
    dropped_items: int

    @property
    def differences(self) -> NDArray[np.float64]:
        """(n, m), the cell's scores minus the baseline's."""
        return self.cell - self.baseline


def pair(cell: Scores, baseline: Scores) -> Paired:
    """Return the scores of both cells on the seeds and items that both have.

    A seed without any score counts as missing. An item is left out for all seeds if one of the cells has no score for
    it in a shared seed. So the result is complete.

    Raises:
        UserError: The cells share no seed, or no item.
    """
    runs = [_scored(scores) for scores in (cell, baseline)]
    seeds = tuple(seed for seed in runs[0] if seed in runs[1])
    if not seeds:
        raise UserError(
            f"the two cells share no seed: one has {_listed(runs[0])}, the other {_listed(runs[1])}; "
            "run both with the same seeds"
        )
    columns = [{item: number for number, item in enumerate(scores.items)} for scores in (cell, baseline)]
    shared = [item for item in columns[0] if item in columns[1]]
    arrays = [
        scores.values[np.ix_([rows[seed] for seed in seeds], [column[item] for item in shared])]
        for scores, rows, column in zip((cell, baseline), runs, columns, strict=True)
    ]
    complete = np.asarray(~np.isnan(arrays).any(axis=(0, 1)))
    if not complete.any():
        raise UserError("the two cells share no item: score both on the same rows")
    items = tuple(item for item, is_complete in zip(shared, complete, strict=True) if is_complete)
    return Paired(
        cell=arrays[0][:, complete],
        baseline=arrays[1][:, complete],
        seeds=seeds,
        items=items,
        dropped_seeds=tuple(seed for seed in dict.fromkeys([*cell.seeds, *baseline.seeds]) if seed not in seeds),
        dropped_items=len({*cell.items, *baseline.items}) - len(items),
    )


def _scored(scores: Scores) -> dict[Hashable, int]:
    empty = np.asarray(np.isnan(scores.values).all(axis=1))
    return {seed: row for row, seed in enumerate(scores.seeds) if not empty[row]}


def _listed(labels: dict[Hashable, int]) -> str:
    return ", ".join(map(str, list(labels)[:5])) or "none"

"""Pairing of two cells by seed and item: shared scores are compared, the others are counted."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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


@dataclass(frozen=True)
class Shared:
    """The scores of several cells on the seeds and items that all of them have.

    Args:
        values: (C, n, m), complete.
        seeds: The n seeds.
        items: The m items.
    """

    values: NDArray[np.float64]
    seeds: tuple[Hashable, ...]
    items: tuple[Hashable, ...]


def shared_scores(cells: Sequence[Scores]) -> Shared:
    """Return the scores of several cells on the seeds and items that all have.

    A seed without any score counts as missing. An item is left out for all seeds if one of the cells has no score for
    it in a shared seed. So the result is complete.

    Raises:
        UserError: The cells share no seed, or no item.
    """
    runs = [_scored(scores) for scores in cells]
    seeds = tuple(seed for seed in runs[0] if all(seed in each for each in runs))
    if not seeds:
        other = next((each for each in runs[1:] if not runs[0].keys() & each.keys()), runs[-1])
        both = f"one has {_listed(runs[0])}, the other {_listed(other)}"
        raise UserError(f"the cells share no seed: {both}; run all with the same seeds")
    if all(scores.items == cells[0].items for scores in cells):
        shared = list(cells[0].items)
        arrays = np.array([s.values[[rows[seed] for seed in seeds]] for s, rows in zip(cells, runs, strict=True)])
    else:
        columns = [{item: number for number, item in enumerate(scores.items)} for scores in cells]
        shared = [item for item in columns[0] if all(item in column for column in columns)]
        arrays = np.array([
            scores.values[np.ix_([rows[seed] for seed in seeds], [column[item] for item in shared])]
            for scores, rows, column in zip(cells, runs, columns, strict=True)
        ])  # fmt: skip
    complete = np.asarray(~np.isnan(arrays).any(axis=(0, 1)))
    if not complete.any():
        raise UserError(
            f"the {'two' if len(cells) == 2 else len(cells)} cells share no item: score both on the same rows"
        )
    items = tuple(item for item, is_complete in zip(shared, complete, strict=True) if is_complete)
    return Shared(arrays[:, :, complete], seeds, items)


def pair(cell: Scores, baseline: Scores) -> Paired:
    """Return the scores of both cells on the seeds and items that both have (``shared_scores``).

    Raises:
        UserError: The cells share no seed, or no item.
    """
    shared = shared_scores([cell, baseline])
    return Paired(
        cell=shared.values[0],
        baseline=shared.values[1],
        seeds=shared.seeds,
        items=shared.items,
        dropped_seeds=tuple(seed for seed in dict.fromkeys([*cell.seeds, *baseline.seeds]) if seed not in shared.seeds),
        dropped_items=len({*cell.items, *baseline.items}) - len(shared.items),
    )


def _scored(scores: Scores) -> dict[Hashable, int]:
    empty = np.asarray(np.isnan(scores.values).all(axis=1))
    return {seed: row for row, seed in enumerate(scores.seeds) if not empty[row]}


def _listed(labels: dict[Hashable, int]) -> str:
    return ", ".join(map(str, list(labels)[:5])) or "none"

"""The front of cells where a larger cost is established to give a better score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from smoa_lightning.ablation.report.cells import CellResult
from smoa_lightning.ablation.report.comparisons import is_established_better
from smoa_lightning.ablation.report.drawing import mean
from smoa_lightning.ablation.report.paired_cells import SeedPools
from smoa_lightning.ablation.statistics import pooled_for_differences


def pareto(points: Sequence[tuple[float, float]], direction: str) -> list[int]:
    """Return the numbers of the points with a better score than every point of the same or a lower cost.

    >>> pareto([(1, 0.5), (2, 0.4), (3, 0.6)], "maximize")
    [0, 2]
    """
    sign = 1 if direction == "maximize" else -1
    front: list[int] = []
    for number in sorted(range(len(points)), key=lambda n: (points[n][0], -sign * points[n][1])):
        if not front or sign * points[number][1] > sign * points[front[-1]][1]:
            front.append(number)
    return front


def established_front(
    cells: Sequence[CellResult], cost: str, direction: str, rows: Mapping[str, str]
) -> list[CellResult]:
    """Return cells with increasing cost, each established to be better than the one before it.

    The cells are chosen by their means, which are partly luck. So p is corrected (Bonferroni) for all pairs of cells
    with different costs, not only for the pairs that are tested.

    Args:
        cells: Cells with runs.
        cost: Name of the cost.
        direction: ``maximize`` or ``minimize``.
        rows: Name of a cell -> the same name for all cells with its report rows and base model. They share a seed
            variance; two cells of different rows have that of their pair.
    """
    if len({cell.metric for cell in cells}) > 1:
        return []
    places = pareto([(cell.costs[cost], mean(cell)) for cell in cells], direction)
    pairs = sum(first.costs[cost] != second.costs[cost] for first, second in combinations(cells, 2))
    families: dict[str, list[CellResult]] = {}
    for cell in cells:
        families.setdefault(rows.get(cell.name, cell.name), []).append(cell)
    pools: dict[str, SeedPools] = {}
    for family in families.values():
        pools |= dict.fromkeys((cell.name for cell in family), SeedPools(family, pooled_for_differences))
    front: list[CellResult] = []
    for cell in (cells[place] for place in places):
        shared = pools[cell.name] if front and pools[cell.name] is pools[front[-1].name] else None
        if not front or is_established_better(cell, front[-1], direction, pairs, shared):
            front.append(cell)
    return front if len(front) > 1 else []

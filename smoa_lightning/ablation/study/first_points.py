r"""The first points of every search: the same for all cells, evenly spread over each range.

Cells that draw their first values independently differ by luck: one cell may have a trial near its best value and
another cell none. Point i is :math:`u_i = (s_i + 2^{-k-1}) \bmod 1`. :math:`s_i` is point i of Sobol's sequence (Sobol
1967) with one dimension for each parameter of the study. :math:`2^k` is the smallest power of two that is at least the
number of points. So :math:`2^k` points have one value in the middle of each of :math:`2^k` equal parts of every range,
on the scale of the range. The points do not depend on the cell, on the worker or on a seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from smoa_lightning.ablation.study.parameters import Parameter
from smoa_lightning.ablation.study.search_space import Search

DIGITS = 4  # significant digits of a value, so that it can be read and typed


def first_points(search: Search, parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Return the first points of a cell's search, without repetitions: at most ``search.common``.

    Args:
        search: The search of the study.
        parameters: The parameters that apply to the cell; their values are those of the cells with more parameters.
    """
    units = unit_points(search.common, len(search.parameters))
    columns = {p.key: column for p, column in zip(sorted(search.parameters, key=lambda p: p.key), units, strict=True)}
    found: list[dict[str, Any]] = []
    for index in range(search.common):
        point = {p.key: _value(p, columns[p.key][index], index) for p in parameters}
        if point not in found:
            found.append(point)
    return found


def unit_points(number: int, dimensions: int) -> list[list[float]]:
    """Return the coordinates of the points in [0, 1), one list for each dimension.

    >>> unit_points(4, 1)
    [[0.125, 0.625, 0.875, 0.375]]
    """
    if not number:
        return [[] for _ in range(dimensions)]
    from scipy.stats import qmc

    exponent = math.ceil(math.log2(number))
    drawn = qmc.Sobol(dimensions, scramble=False).random_base2(exponent)[:number]
    return [[float(each) for each in column] for column in ((drawn + 0.5 / 2**exponent) % 1).T]


def _value(parameter: Parameter, unit: float, index: int) -> Any:
    """Return the value at a place of a range, 0 its low and 1 its high end; or the value that the study file gives."""
    if index < len(parameter.points):
        return parameter.points[index]
    if (values := parameter.values) is not None:
        return values[int(unit * len(values))]
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        exact = math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
    else:
        exact = low + unit * (high - low)
    near = round(exact) if parameter.integer else float(f"{exact:.{DIGITS}g}")
    return min(max(near, parameter.low), parameter.high)

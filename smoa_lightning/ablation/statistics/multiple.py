"""Holm's correction for several comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smoa_lightning.common.errors import UserError


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    r"""Return adjusted p-values, so that the chance of any false rejection in the family stays below the level.

    For c comparisons with sorted p-values, :math:`\tilde p_{(i)} = \max_{j \le i} \min(1, (c - j + 1)\, p_{(j)})`. This
    holds for any dependence of the comparisons (Holm 1979, Scandinavian Journal of Statistics 6, 65), and is never less
    powerful than Bonferroni's :math:`c\,p`. Equal p-values stay equal, and the order is kept.

    Args:
        p_values: One for each comparison. None, for a comparison without a test, stays None and is not counted.

    Raises:
        UserError: A p-value is outside of [0, 1].

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    tested = [number for number, p in enumerate(p_values) if p is not None]
    p = np.array([p_values[number] for number in tested], dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise UserError(f"a p-value is {p[~((p >= 0) & (p <= 1))][0]}, but must be in [0, 1], or None without a test")
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    adjusted: list[float | None] = [None] * len(p_values)
    for position, value in zip(order, stepped, strict=True):
        adjusted[tested[position]] = float(value)
    return adjusted

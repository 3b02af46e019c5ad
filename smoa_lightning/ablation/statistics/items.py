"""Two runs on the same items, right or wrong: the exact McNemar test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from smoa_lightning.common.errors import UserError


@dataclass(frozen=True)
class McNemar:
    """What McNemar's test says of two runs.

    Args:
        only_first: Items that the first run alone has right.
        only_second: Items that the second run alone has right.
        p: Exact two-sided p-value.
        n_items: Number of items.
    """

    only_first: int
    only_second: int
    p: float
    n_items: int


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    r"""Return the exact McNemar test of two runs on the same items.

    Under the null an item on which the runs differ is as often right in one as in the other, so
    :math:`b \sim \mathrm{Binomial}(b + c, 1/2)` and :math:`p = \min(1, 2 P[X \le \min(b, c)])`
    (McNemar 1947, Psychometrika 12, 153). It compares two trained models on these items, not two methods: another seed
    of the same method may well differ "significantly" from the first. Use ``crossed_difference`` for methods.

    Args:
        first: (m,), 1 or 0 (or booleans) for right and wrong.
        second: (m,), on the same items.

    Raises:
        UserError: Other values than 0 and 1, or not the same number of items.

    >>> mcnemar([1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]).p
    0.03125
    """
    a, b = _right_or_wrong(first, second)
    if a.ndim != 1:
        raise UserError(f"McNemar's test takes one run and one other, got the shape {a.shape}: choose a seed")
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    count = only_first + only_second
    p = min(1.0, 2 * float(special.bdtr(min(only_first, only_second), count, 0.5))) if count else 1.0
    return McNemar(only_first, only_second, p, len(a))


def _right_or_wrong(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim not in (1, 2) or not a.size:
        raise UserError(f"runs of the shapes {a.shape} and {b.shape} are compared: give both for the same items")
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise UserError("items are counted by right and wrong, and a score is neither 1 nor 0: compare means instead")
    return a.astype(bool), b.astype(bool)

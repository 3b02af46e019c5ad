"""The exact McNemar test: two runs on the same items, each item right or wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from smoa_lightning.common.errors import UserError


@dataclass(frozen=True)
class McNemar:
    """The result of McNemar's test of two runs.

    Args:
        only_first: Number of items that only the first run has right.
        only_second: Number of items that only the second run has right.
        p: Exact two-sided p-value.
        n_items: Number of items.
    """

    only_first: int
    only_second: int
    p: float
    n_items: int


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    r"""Return the exact McNemar test of two runs on the same items.

    Let b and c be the numbers of items that only one of the runs has right. Under the null hypothesis each such item is
    equally likely to be right in either run. So :math:`b \sim \mathrm{Binomial}(b + c, 1/2)` and
    :math:`p = \min(1, 2 P[X \le \min(b, c)])` (McNemar 1947, Psychometrika 12, 153). The test compares two trained
    models, not two methods. A second seed of the same method may also differ "significantly" from the first. Use
    ``crossed_difference`` to compare methods.

    Args:
        first: (m,), 1 or 0 (or booleans) for right and wrong.
        second: (m,), on the same items.

    Raises:
        UserError: A value is not 0 or 1, or the numbers of items differ.

    >>> mcnemar([1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]).p
    0.03125
    """
    a, b = _right_or_wrong(first, second)
    if a.ndim != 1:
        raise UserError(f"McNemar's test compares two runs, but the scores have the shape {a.shape}: choose one seed")
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    count = only_first + only_second
    p = min(1.0, 2 * float(special.bdtr(min(only_first, only_second), count, 0.5))) if count else 1.0
    return McNemar(only_first, only_second, p, len(a))


def _right_or_wrong(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim not in (1, 2) or not a.size:
        raise UserError(f"cannot compare runs of the shapes {a.shape} and {b.shape}: give both for the same items")
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise UserError(
            "McNemar's test needs 1 (right) or 0 (wrong) for each item, but a score is different: compare means instead"
        )
    return a.astype(bool), b.astype(bool)

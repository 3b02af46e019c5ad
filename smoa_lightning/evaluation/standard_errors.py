"""Means over items and their standard errors. Items of one group are not independent, so groups are the unit then."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from smoa_lightning.common.item_statistics import by_groups

Groups = Sequence[Hashable]  # the group of each item


def mean_and_stderr(values: ArrayLike, groups: Groups | None = None) -> tuple[float, float]:
    """Return the mean over items and its standard error, sd / sqrt(n) with n - 1 in the sd.

    With groups it is the cluster-robust error of ``by_groups``, as in studies. It is nan for a single item or group,
    which does not show how others vary.

    Args:
        values: (n,), one score for each item.
        groups: The group of each item; None if all items are independent.

    >>> mean_and_stderr([0.0, 1.0, 1.0, 0.0])[0]
    0.5
    >>> [round(mean_and_stderr([0.0, 0.0, 1.0, 1.0], groups)[1], 4) for groups in (None, "aabb")]
    [0.2887, 0.5]
    """
    scores = np.asarray(values, dtype=np.float64)
    mean = float(scores.mean())
    if groups is not None and len(set(groups)) > 1:
        scores = by_groups(scores, groups)
    elif groups is not None:
        scores = scores[:1]
    return mean, float(scores.std(ddof=1)) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan


def with_stderr(name: str, values: ArrayLike, groups: Groups | None = None) -> dict[str, float]:
    """Return a mean over items as ``name`` and its standard error, if it is known, as ``<name>_stderr``."""
    mean, error = mean_and_stderr(values, groups)
    return known_errors({name: mean, f"{name}_stderr": error})


def known_errors(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics without the standard errors that are nan."""
    return {name: value for name, value in metrics.items() if not (name.endswith("_stderr") and math.isnan(value))}


def groups_of(records: Sequence[Mapping[str, Any]], groups: Any) -> list[int] | None:
    """Return the group of each record; None if no two records share a group.

    Args:
        records: Records of items with their ``row``.
        groups: Row -> its group, such as an array; None if it is not known.
    """
    if groups is None:
        return None
    found = [int(groups[record["row"]]) for record in records]
    return found if len(set(found)) < len(found) else None

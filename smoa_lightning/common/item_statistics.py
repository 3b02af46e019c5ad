"""Scores of items for means and their standard errors: groups of items that are not independent, and the perplexity.

Items of one group (replies of one conversation, questions of one passage) are not independent. Standard errors of a
run and comparisons of runs use these functions.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smoa_lightning.common.errors import UserError


def by_groups(scores: NDArray[np.float64], groups: Sequence[Hashable]) -> NDArray[np.float64]:
    r"""Return one score for each group, so that their mean is that of the items and their spread that of groups.

    With the sum of the deviations of group g from the mean of its run,

    .. math:: u_{sg} = \bar d_s + \frac{G}{m} \sum_{i \in g} (d_{si} - \bar d_s)

    The variance of the mean of u over G groups is the cluster-robust variance of the mean over items (Liang and Zeger
    1986, Biometrika 73, 13), with the factor G/(G-1). With one item in each group u is d.

    Args:
        scores: (..., n, m).
        groups: (m,), the group of each item.

    Returns:
        (..., n, G), in the order of the groups' first items.

    Raises:
        UserError: The numbers differ, or all items are of one group.
    """
    m = scores.shape[-1]
    if len(groups) != m:
        raise UserError(f"there are {len(groups)} groups for {m} items: give one for each item")
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    count = len(number)
    if count == m:
        return scores
    if count < 2:
        raise UserError(f"all {m} items are of one group, so it is not known how groups vary")
    places = np.array([number[group] for group in groups])
    order = np.argsort(places, kind="stable")
    starts = np.searchsorted(places[order], np.arange(count))
    means = scores.mean(axis=-1, keepdims=True)
    sums: NDArray[np.float64] = np.add.reduceat((scores - means)[..., order], starts, axis=-1)
    found: NDArray[np.float64] = means + sums * (count / m)
    return found


def common_groups(runs: Iterable[Mapping[Any, Hashable]], items: Sequence[Hashable]) -> list[Hashable] | None:
    """Return the group of each item; None if no run knows it.

    Items that are in one group by any of the runs are in one group.

    Args:
        runs: For each run, item -> its group; empty if the run knows none.
        items: The items.
    """
    known: list[Mapping[Any, Hashable]] = []
    for run in runs:
        if run and run not in known:
            known.append(run)
    if len(known) > 1:
        return _merged(known, items)
    return [known[0].get(item, item) for item in items] if known else None


def _merged(known: Sequence[Mapping[Any, Hashable]], items: Sequence[Hashable]) -> list[Hashable]:
    """Return the group of each item, where files of different rows name their groups differently."""
    from scipy.sparse import coo_array  # here, since only runs with different rows need it
    from scipy.sparse.csgraph import connected_components

    nodes: dict[Hashable, int] = {item: place for place, item in enumerate(items)}
    links = [
        (place, nodes.setdefault(("group", number, groups[item]), len(nodes)))
        for place, item in enumerate(items)
        for number, groups in enumerate(known)
        if item in groups
    ]
    size = (len(nodes), len(nodes))
    graph = coo_array((np.ones(len(links)), tuple(zip(*links, strict=True))), shape=size) if links else coo_array(size)
    labels: list[Hashable] = connected_components(graph, directed=False)[1][: len(items)].tolist()
    return labels


def perplexity_scores(nll: ArrayLike, tokens: ArrayLike) -> NDArray[np.float64]:
    r"""Return one score for each item, so that their mean is the perplexity and their spread is that of the perplexity.

    With :math:`r = \sum_i n_i / \sum_i t_i`, the perplexity is :math:`e^r`, and the scores are its linearisation

    .. math:: v_i = e^r \left(1 + (n_i - r\, t_i) / \bar t\right)

    The standard deviation of :math:`v` over :math:`\sqrt m` is the standard error of the delta method. Differences of
    two models over paired items follow from paired scores.

    Args:
        nll: (m,), the negative log-likelihood of each item.
        tokens: (m,), the number of tokens of each item.

    >>> perplexity_scores([2.0, 4.0], [1, 1]).mean().round(4), np.exp(3.0).round(4)
    (np.float64(20.0855), np.float64(20.0855))
    """
    n, t = np.asarray(nll, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    rate = n.sum() / t.sum()
    with np.errstate(invalid="ignore", over="ignore"):  # of numbers that are not finite, which are no scores
        scores: NDArray[np.float64] = np.exp(rate) * (1 + (n - rate * t) / t.mean())
    return scores

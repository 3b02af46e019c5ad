"""Report rows that are training rows too: their scores show what was learned by heart."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np

from smoa_lightning.data.rows.row_table import RowTable

logger = logging.getLogger(__name__)


class Overlap(NamedTuple):
    """How many report rows are not new to a model that was trained on the training rows.

    Args:
        rows: Number of report rows that are used.
        same_group: Report rows of a group (for PIQA a goal) that also has training rows.
        identical: Report rows that are training rows, in all fields that the task reads.
    """

    rows: int
    same_group: int
    identical: int


def overlap(
    trained: RowTable, reported: RowTable, train_rows: np.ndarray | None = None, report_rows: np.ndarray | None = None
) -> Overlap:
    """Compare the used rows of two splits.

    Args:
        trained: The split of the training rows.
        reported: The split of the report rows.
        train_rows: The rows that train or select, as indices; ``None`` means all.
        report_rows: The rows that are reported, as indices; ``None`` means all.

    Rows of one split are compared only with those rows of the other that are in the same group. So an overlap costs
    the time to read its rows, and no overlap costs nothing.
    """
    here = np.arange(len(trained)) if train_rows is None else train_rows
    there = np.arange(len(reported)) if report_rows is None else report_rows
    ours, theirs = trained.groups[here], reported.groups[there]
    shared = np.intersect1d(ours, theirs)
    suspects = there[np.isin(theirs, shared)]
    if not len(suspects):
        return Overlap(len(there), 0, 0)
    known = {hash(trained.text(int(row))) for row in here[np.isin(ours, shared)]}
    identical = sum(hash(reported.text(int(row))) in known for row in suspects)
    return Overlap(len(there), len(suspects), identical)


def report_overlap(task: str, found: Overlap) -> None:
    """Log an overlap: identical rows as a warning, rows of the same group as a note."""
    if found.identical:
        logger.warning(
            "%s: report and training rows overlap: %d of %d report rows are training rows too, so the scores also show"
            " what was learned by heart; remove these rows from one of the files.",
            task,
            found.identical,
            found.rows,
        )
    if found.same_group > found.identical:
        logger.info(
            "%s: %d of %d report rows are not training rows, but share their group with training rows (the same"
            " question, passage or conversation).",
            task,
            found.same_group - found.identical,
            found.rows,
        )

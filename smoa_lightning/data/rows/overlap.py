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
        rows: Number of report rows.
        same_group: Report rows of a group (for PIQA a goal) that also has training rows.
        identical: Report rows that are training rows, in all fields that the task reads.
    """

    rows: int
    same_group: int
    identical: int


def overlap(trained: RowTable, reported: RowTable) -> Overlap:
    """Compare the rows of two splits.

    Rows of one split are compared only with those rows of the other that are in the same group. So an overlap costs
    the time to read its rows, and no overlap costs nothing.
    """
    shared = np.intersect1d(trained.groups, reported.groups)
    suspects = np.flatnonzero(np.isin(reported.groups, shared))
    if not len(suspects):
        return Overlap(len(reported), 0, 0)
    known = {hash(trained.text(int(row))) for row in np.flatnonzero(np.isin(trained.groups, shared))}
    identical = sum(hash(reported.text(int(row))) in known for row in suspects)
    return Overlap(len(reported), len(suspects), identical)


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

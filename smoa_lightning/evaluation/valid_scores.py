"""Scores that are not finite: such an item has no right or wrong answer, so it must not count as either."""

from __future__ import annotations

import math
from collections.abc import Sequence

from smoa_lightning.common.errors import NotFinite

REMEDY = (
    "the weights or the activations of the model are not finite: check its files, and try model.backbone.dtype "
    "float32 and trainer.precision 32-true"
)


def check_scores(values: Sequence[float], item: str, what: str = "log-likelihood") -> None:
    """Refuse an item with a score that is NaN or infinite.

    Args:
        values: The scores of the item, one for each choice.
        item: The item, for the message.
        what: What the scores are, for the message.

    Raises:
        NotFinite: The message has the item and the choice.
    """
    for number, value in enumerate(values, start=1):
        if not math.isfinite(value):
            place = f" of choice {number}" if len(values) > 1 else ""
            raise NotFinite(f"{item}: the {what}{place} is {value}, so the item has no valid score; {REMEDY}")

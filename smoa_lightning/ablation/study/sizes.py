"""Whether cells that are compared have the same number of trainable parameters."""

from __future__ import annotations

from collections.abc import Mapping

SAME_SIZE = 1.1  # largest ratio of the parameters of two cells that count as equal


def different_sizes(parameters: Mapping[str, float], what: str = "cells") -> str:
    """Return a sentence if cells have different sizes; empty if they have not. Cells that train nothing do not count.

    Args:
        parameters: Cell or run -> trainable parameters, of those that are compared.
        what: What they are, for the sentence.

    >>> different_sizes({"lora": 1000, "smoa": 2000, "frozen": 0})[:58]
    'sizes differ: 1,000 parameters in lora, 2,000 in smoa. So '
    >>> different_sizes({"lora": 1000, "smoa": 1050})
    ''
    """
    trained = {cell: count for cell, count in parameters.items() if count}
    if not trained:
        return ""
    least, most = min(trained, key=trained.__getitem__), max(trained, key=trained.__getitem__)
    if trained[most] <= SAME_SIZE * trained[least]:
        return ""
    return (
        f"sizes differ: {trained[least]:,.0f} parameters in {least}, {trained[most]:,.0f} in {most}. So a difference "
        f"between these {what} may come from their sizes"
    )

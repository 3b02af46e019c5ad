"""Few-shot prompts: solved training rows before the question, the same ones for every item."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from smoa_lightning.data.tasks import ChoiceExample, ReplyExample

Example = ChoiceExample | ReplyExample
BETWEEN = "\n\n"  # between two shots, as in EleutherAI's lm-evaluation-harness


def choose(indices: Sequence[int], count: int, seed: int) -> list[int]:
    """Return ``count`` of the training rows, chosen by the seed; a larger count keeps a smaller one's rows."""
    shuffled = list(indices)
    random.Random(f"shots/{seed}").shuffle(shuffled)
    return shuffled[:count]


def prefix(shots: Sequence[Example]) -> str:
    r"""Return the solved examples as one text.

    >>> prefix([ChoiceExample("Q: 1+1\nA:", (" 2", " 3"), 0)])
    'Q: 1+1\nA: 2\n\n'
    """
    return "".join(prompt + response + BETWEEN for prompt, response in (shot.target for shot in shots))


def with_prefix(example: Example, text: str) -> Example:
    """Return the example with a text before its prompt, before each of them where every choice has its own."""
    if isinstance(example, ReplyExample):
        return replace(example, head=text + example.head)
    if isinstance(example.prompt, str):
        return replace(example, prompt=text + example.prompt)
    return replace(example, prompt=tuple(text + prompt for prompt in example.prompt))

"""Few-shot prompts: solved training rows before the question, the same rows for every item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from smoa_lightning.data.rows.splits import shuffled
from smoa_lightning.data.tasks import ChoiceExample, ReplyExample

Example = ChoiceExample | ReplyExample
BETWEEN = "\n\n"  # between two shots, as in EleutherAI's lm-evaluation-harness


def choose(indices: Sequence[int] | np.ndarray, count: int, seed: int) -> list[int]:
    """Return ``count`` of the training rows, chosen by the seed; a larger count contains the rows of a smaller one."""
    chosen: list[int] = shuffled(indices, f"shots/{seed}")[:count].tolist()
    return chosen


def solved(examples: Sequence[Example]) -> tuple[str, ...]:
    r"""Return each example with its answer as a text.

    >>> solved([ChoiceExample("Q: 1+1\nA:", (" 2", " 3"), 0)])
    ('Q: 1+1\nA: 2\n\n',)
    """
    return tuple(prompt + response + BETWEEN for prompt, response in (example.target for example in examples))


def with_shots(example: Example, shots: tuple[str, ...]) -> Example:
    """Return the example with shots before its prompt, or before the prompt of each choice.

    A prompt that is too long loses its shots first.
    """
    text = "".join(shots)
    if isinstance(example, ReplyExample):
        return replace(example, shots=shots)
    if isinstance(example.prompt, str):
        return replace(example, prompt=text + example.prompt)
    return replace(example, prompt=tuple(text + prompt for prompt in example.prompt))

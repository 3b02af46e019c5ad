"""Examples, made of rows: scored choices, a prompt for a generated reply, a text or an image with a label."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ChoiceExample:
    """An item with several answers; one of them is right.

    ``prompt`` is one text, or one text for each choice (partial evaluation, as in WinoGrande, scores one continuation
    after different prompts). A choice includes its delimiter: ``" Paris"``, not ``"Paris"``.
    """

    prompt: str | tuple[str, ...]
    choices: tuple[str, ...]
    label: int

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The (prompt, response) pairs that are scored, one for each choice."""
        prompts = (self.prompt,) * len(self.choices) if isinstance(self.prompt, str) else self.prompt
        return list(zip(prompts, self.choices, strict=True))

    @property
    def target(self) -> tuple[str, str]:
        """The (prompt, response) pair for training: the right one."""
        return self.pairs[self.label]

    @property
    def num_bytes(self) -> list[int]:
        """UTF-8 bytes of each choice without the space between prompt and choice."""
        return [len(choice.removeprefix(" ").encode()) for choice in self.choices]


@dataclass(frozen=True)
class LabelledExample:
    """A text, or a pair of texts, with a label: the number of its class, or for a regression a number.

    >>> LabelledExample(("It rains.", "It is wet."), 0).prompt
    'It rains. | It is wet.'
    """

    texts: tuple[str] | tuple[str, str]
    label: int | float

    @property
    def prompt(self) -> str:
        """The text or the pair as one text, for tables."""
        return " | ".join(self.texts)


@dataclass(frozen=True)
class ImageExample:
    """An image with the number of its class.

    Args:
        image: The bytes of the image file as base64 text.
        label: Number of the class.
    """

    image: str
    label: int

    @property
    def prompt(self) -> str:
        """A name of the image, for tables: the start of the SHA-256 of its text."""
        return f"image {hashlib.sha256(self.image.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Message:
    """A turn of a conversation: ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True)
class ReplyExample:
    """An item with an answer that the model generates.

    The prompt is ``"".join(shots) + head + "".join(turns)``. If it is too long for the model, whole shots are removed
    first, then whole turns, the oldest first. ``head`` (the persona, the instruction) and the latest turn stay.

    Args:
        head: Beginning of the prompt.
        turns: The rest of the prompt in pieces, which are removed from the left.
        response: The gold reply with its delimiter, for training and as the reference of the reply's metrics.
        answer: The right answer; None if replies are compared as texts.
        messages: The same conversation before the reply as messages, for a chat template: system messages, then one
            message for each turn. Empty: the task has no roles.
        shots: Solved examples before the prompt.
        masked: Whether the prompt holds messages that the loss must not count, so that ``loss_on: all`` is refused.
    """

    head: str
    turns: tuple[str, ...]
    response: str
    answer: str | None = None
    messages: tuple[Message, ...] = ()
    shots: tuple[str, ...] = ()
    masked: bool = False

    @property
    def prompt(self) -> str:
        """The prompt as plain text."""
        return "".join(self.shots) + self.head + "".join(self.turns)

    @property
    def target(self) -> tuple[str, str]:
        """The (prompt, response) pair for training."""
        return self.prompt, self.response

    @property
    def reference(self) -> str:
        """The gold reply without its delimiter."""
        return self.response.strip()

    def shortened(self) -> ReplyExample | None:
        """Return the example without its first shot, or else without its oldest turn; None if only one turn is left."""
        if self.shots:
            return replace(self, shots=self.shots[1:])
        if len(self.turns) < 2:
            return None
        system = tuple(message for message in self.messages if message.role == "system")
        rest = self.messages[len(system) :]
        return replace(self, turns=self.turns[1:], messages=system + rest[1:])

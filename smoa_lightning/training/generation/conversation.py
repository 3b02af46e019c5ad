"""A conversation with a model: its history, which loses its oldest turns where the context ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from smoa_lightning.data.tasks import Message
from smoa_lightning.training.generation.prompts import Prompt
from smoa_lightning.training.generation.speaker import Decoding, Speaker


class Listener(Protocol):
    """Hears a reply while it is written."""

    def __call__(self, text: str) -> bool:
        """Take the reply so far, and return whether to stop it."""


@dataclass(frozen=True)
class Asked:
    """A message that fits into the context.

    Attributes:
        prompt: What the model replies to.
        messages: The history with the message; empty if each message is a prompt of its own.
        dropped: Number of oldest messages that no longer fit.
    """

    prompt: Prompt
    messages: tuple[Message, ...]
    dropped: int = 0


class Conversation:
    """Messages of a user and the replies of one model.

    Args:
        speaker: The model.
        decoding: How replies are generated.
        note: Takes a sentence about turns that were dropped.
    """

    def __init__(self, speaker: Speaker, decoding: Decoding, note: Callable[[str], None]) -> None:
        self.speaker, self.decoding = speaker, decoding
        self.messages: list[Message] = []
        self._note = note

    def reset(self) -> None:
        """Remove all messages."""
        self.messages = []

    def check_system(self, text: str) -> None:
        """Check that a message can follow a system text.

        Args:
            text: The system text.

        Raises:
            UserError: The chat template refuses or omits it, or it does not fit into the context.
        """
        prompt = Prompt("the system text", messages=(Message("user", "Hello"),), system=text)
        self.speaker.encoder.ids(prompt, self.decoding.max_new_tokens)

    def ask(self, text: str) -> Asked:
        """Return a message with the latest history that fits into the context; nothing is kept yet.

        If the run was trained on single prompts, each message is a prompt of its own, and there is no history.

        Raises:
            UserError: The message alone does not fit into the context.
        """
        if self.speaker.encoder.holds_conversations:
            return self._fitting([*self.messages, Message("user", text.strip())])
        prompt = Prompt("the message", text)
        self.speaker.encoder.ids(prompt, self.decoding.max_new_tokens)
        return Asked(prompt, ())

    def reply(self, asked: str | Asked, number: int, listener: Listener | None = None) -> str:
        """Return the reply to a message and add both to the history.

        Args:
            asked: The message, or what :meth:`ask` returned for it.
            number: Number of the reply, which decides its draws.
            listener: Hears the reply while it is written, unless it is searched with beams.

        Raises:
            UserError: The message alone does not fit into the context; the history stays as it was.
        """
        encoder = self.speaker.encoder
        asked = self.ask(asked) if isinstance(asked, str) else asked
        if asked.dropped:
            self._note(
                f"the oldest {asked.dropped} messages were dropped: with {self.decoding.max_new_tokens} new tokens, "
                f"the conversation no longer fits into the context of {encoder.limits.describe()}"
            )
        stops = encoder.stops(asked.prompt)

        def ended(tokens: list[int]) -> bool:
            assert listener is not None
            complete = [token for token in tokens if token not in encoder.ends]
            return listener("" if self.decoding.num_beams > 1 else _shown(encoder.reply(complete, stops), stops))

        (reply,) = self.speaker.replies([asked.prompt], self.decoding, [number], ended if listener else None)
        if asked.messages:
            self.messages = [*asked.messages, Message("assistant", reply)]
        return reply

    def _fitting(self, messages: list[Message]) -> Asked:
        """Return the latest messages that fit into the context, the first of them the user's."""
        encoder, new = self.speaker.encoder, self.decoding.max_new_tokens
        context, dropped = encoder.limits.context, 0
        while True:
            prompt = Prompt("the message", messages=tuple(messages[dropped:]))
            if context is None or len(messages) - dropped < 2 or len(encoder.all_ids(prompt)) + new <= context:
                break
            dropped += 2
        encoder.ids(prompt, new)
        return Asked(prompt, prompt.messages, dropped)


def _shown(text: str, stops: tuple[str, ...]) -> str:
    """Return the part of an unfinished reply that later tokens do not change: no half letter, no half stop text."""
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")
    half = max((len(part) for stop in stops for n in range(1, len(stop)) if text.endswith(part := stop[:n])), default=0)
    return text[: len(text) - half].rstrip()

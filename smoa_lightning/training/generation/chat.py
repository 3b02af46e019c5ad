"""``generate RUN --chat``: a conversation in the terminal, with replies that appear while they are written."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.training.generation.conversation import Conversation
from smoa_lightning.training.generation.speaker import Decoding, Speaker

COMMANDS = {
    "/reset": "begin a new conversation",
    "/system": '/system TEXT begins a new conversation with this system text ("" for none); alone it shows the text',
    "/help": "show these commands",
    "/exit": "end the chat, as Ctrl-D does; Ctrl-C stops a reply",
}
ASK = "> "


class Chat:
    """Conversations of one user with one or two models.

    Args:
        speakers: The models, loaded.
        decoding: How replies are generated.
        output: Where replies go.
        notes: Where everything else goes.
    """

    def __init__(
        self, speakers: Sequence[Speaker], decoding: Decoding, output: TextIO | None = None, notes: TextIO | None = None
    ) -> None:
        self._output, self._notes = output or sys.stdout, notes or sys.stderr
        self._talks = [Conversation(speaker, decoding, self.note) for speaker in speakers]
        self._replies = 0

    def note(self, text: str) -> None:
        """Print a sentence that is no reply."""
        print(f"({text})", file=self._notes, flush=True)

    def run(self, lines: Iterator[str]) -> None:
        """Answer each line until the lines or the chat end."""
        for line in lines:
            text = line.strip()
            word, _, rest = text.partition(" ")
            if word == "/exit":
                break
            if word.startswith("/") and word[1:].isalpha():
                self._obey(word, rest.strip())
            elif text:
                try:
                    self.say(text)
                except UserError as error:
                    self.note(f"{error}; the message was not sent")

    def _obey(self, word: str, rest: str) -> None:
        encoders = [talk.speaker.encoder for talk in self._talks]
        if word == "/help":
            for name, meaning in COMMANDS.items():
                self.note(f"{name}: {meaning}")
        elif word == "/reset":
            self._reset()
        elif word == "/system" and not rest:
            for encoder in encoders[: 1 if len({encoder.system for encoder in encoders}) == 1 else None]:
                self.note(f"system text: {encoder.system!r}" if encoder.system else "no system text")
        elif word == "/system" and not all(encoder.holds_conversations for encoder in encoders):
            self.note("the run was trained on single prompts without a chat template, so it knows no system text")
        elif word == "/system":
            self._change_system("" if rest in ('""', "''") else rest)
        else:
            self.note(f"unknown command {word}; did you mean {nearest(word, COMMANDS, 1)}?")

    def _change_system(self, text: str) -> None:
        """Begin a new conversation with a system text, or keep the old one if a model cannot take the text."""
        try:
            for talk in self._talks:
                talk.check_system(text)
        except UserError as error:
            self.note(f"{error}; the system text stays as it was")
            return
        for talk in self._talks:
            talk.speaker.encoder.system = text
        self._reset()

    def _reset(self) -> None:
        for talk in self._talks:
            talk.reset()
        self.note("a new conversation begins")

    def say(self, text: str) -> list[str]:
        """Print and return the reply of each model to a message; Ctrl-C stops it and keeps what is written.

        Raises:
            UserError: The message does not fit into the context of one of the models; then no model replies.
        """
        asked = [talk.ask(text) for talk in self._talks]
        number, self._replies = self._replies, self._replies + 1
        made = []
        for talk, message in zip(self._talks, asked, strict=True):
            if len(self._talks) > 1:
                self._write(f"[{talk.speaker.label}] ")
            with interrupts() as stopped:
                printer = _Printer(self._write, stopped)
                made.append(talk.reply(message, number, printer))
            self._write(printer.rest(made[-1]) + "\n")
            if stopped():
                self.note("stopped")
        return made

    def _write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()


class _Printer:
    """Prints what is new in a growing reply, and says when it is to stop.

    Args:
        write: Prints a text.
        stopped: Whether the user wants the reply to stop.
    """

    def __init__(self, write: Callable[[str], None], stopped: Callable[[], bool]) -> None:
        self._write, self._stopped = write, stopped
        self.shown = ""

    def __call__(self, text: str) -> bool:
        if text.startswith(self.shown):
            self._write(text[len(self.shown) :])
            self.shown = text
        return self._stopped()

    def rest(self, reply: str) -> str:
        """Return what is left to print of a complete reply; all of it if later tokens changed what was shown."""
        return reply[len(self.shown) :] if reply.startswith(self.shown) else f"\n{reply}"


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Yield whether Ctrl-C was pressed; a second Ctrl-C interrupts the program as always."""
    pressed: list[int] = []

    def press(number: int, frame: Any) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def typed_lines() -> Iterator[str]:
    """Yield the lines that a user types; Ctrl-C clears the line, and Ctrl-D ends them."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() then edits lines and remembers them)
    while True:
        try:
            yield input(ASK)
        except EOFError:
            print(flush=True)
            return
        except KeyboardInterrupt:
            print(flush=True)

"""``generate --chat`` in a pseudo-terminal and behind a pipe, and ``--turns``."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import os
import pty
import re
import select
import signal
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from smoa_lightning.__main__ import main
from smoa_lightning.training.generate import generate
from smoa_lightning.training.generation.chat import Chat
from smoa_lightning.training.generation.prompts import Prompt
from smoa_lightning.training.generation.speaker import Decoding, load_speakers, open_speakers
from tests.training.generation.conftest import TEMPLATE

Saved = Callable[..., Path]


def keep_output_at_interrupt() -> None:
    """Set NOFLSH: the terminal then keeps what the command prints while Ctrl-C arrives, as a test waits for it."""
    settings = termios.tcgetattr(0)
    settings[3] |= termios.NOFLSH
    termios.tcsetattr(0, termios.TCSANOW, settings)


class Terminal:
    """A pseudo-terminal whose other side runs a command in a forked process."""

    def __init__(self, arguments: list[str]) -> None:
        self.process, self.handle = pty.fork()
        self.seen = ""
        if not self.process:
            status = 99
            try:
                torch.set_num_threads(1)
                keep_output_at_interrupt()
                # a shell starts a command in the background, such as a whole test run, with SIGINT ignored
                signal.signal(signal.SIGINT, signal.default_int_handler)
                sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
                status = main(arguments)
            finally:
                os._exit(status)

    def write(self, text: str) -> None:
        os.write(self.handle, text.encode())

    def until(self, pattern: str, seconds: float = 60) -> str:
        """Return what the command prints up to a pattern, and forget it."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < end, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.handle], [], [], 1)[0]:
                self.seen += os.read(self.handle, 4096).decode(errors="replace")
        text, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return text

    def interrupt_line(self) -> None:
        """Press Ctrl-C until a new prompt appears.

        CPython with readline sees a Ctrl-C that arrives between two waits for a key only at the next key or signal.
        """
        for _ in range(5):
            self.write("\x03")
            with contextlib.suppress(AssertionError):
                self.until(r"\n> ", 12)
                return
        raise AssertionError(f"no prompt after Ctrl-C in {self.seen!r}")

    def status(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def test_a_chat_in_a_terminal(saved: Saved) -> None:
    """A reply appears before it is complete, Ctrl-C stops it, commands are obeyed, Ctrl-D ends the chat."""
    terminal = Terminal(["generate", str(saved("lora")), "--chat", "--max_new_tokens", "450"])
    terminal.until(r"/help lists the commands.*\n> ")
    terminal.write("Tell\n")
    terminal.until(r"Tell\r\n")
    terminal.until(r"[^\r\n ]")  # the first letter of the reply
    terminal.write("\x03")
    reply = terminal.until(r"\(stopped\)\r\n> ")
    assert len(reply) < 440
    terminal.write("/system\n")
    terminal.until(r"\(system text: 'Be brief.'\)\r\n> ")
    terminal.write("/rest\n")
    terminal.until(r"\(unknown command /rest; did you mean /reset\?\)\r\n> ")
    os.write(terminal.handle, b"\xff\n")  # not UTF-8
    terminal.until(r"\r\n")
    terminal.until(r"[^\r\n ]")
    terminal.write("\x03")
    terminal.until(r"\(stopped\)\r\n> ")
    terminal.write("half a line")
    terminal.until("half a line")
    terminal.interrupt_line()
    terminal.write("/help\n")
    terminal.until(r"\(/exit: end the chat.*\)\r\n> ")
    terminal.write("\x04")
    assert terminal.status() == 0


def test_lines_of_a_pipe_are_turns(
    saved: Saved, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Later lines see earlier replies; only replies are on the standard output, and ``--turns`` gives the same."""
    run = saved("lora")
    flags = ["--max_new_tokens", "8"]
    lines = 'Hi\n\nMore\n/reset\nMore\n/system ""\nMore\n' + "long " * 200 + "\n/exit\nnever\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    capsys.readouterr()
    assert main(["generate", str(run), "--chat", *flags]) == 0
    shown = capsys.readouterr()
    first = generate(run, ["Hi", "More"], 8)
    plain = generate(run, ["More"], 8, system="")
    assert shown.out.startswith(first[0] + "\n")
    assert shown.out.endswith(f"{first[1]}\n{plain[0]}\n")
    second = shown.out[len(first[0]) + 1 : -len(f"{first[1]}\n{plain[0]}\n") - 1]
    assert second not in (first[1], "")
    assert shown.err.count("a new conversation begins") == 2
    assert re.search(r"\(the message has \d+ tokens, .*: shorten the prompt; the message was not sent\)", shown.err)
    assert main(["generate", str(run), "--prompt", "Hi", "--prompt", "More", "--turns", *flags]) == 0
    assert capsys.readouterr().out == f"> Hi\n{first[0]}\n> More\n{second}\n"


def test_two_models_chat_side_by_side(
    saved: Saved, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n"))
    capsys.readouterr()
    assert main(["generate", str(saved("lora")), "--chat", "--max_new_tokens", "8", "--against", "base"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"[{saved('lora').parent.name}/adapter] {generate(saved('lora'), ['Hi'], 8)[0]}\n[base] ")


@pytest.mark.parametrize("refusing", [0, 1])
def test_a_message_that_one_of_two_models_refuses_is_kept_by_none(saved: Saved, refusing: int) -> None:
    speakers = open_speakers(saved("lora"), "base")
    speakers[1] = dataclasses.replace(speakers[1], encoder=copy.copy(speakers[1].encoder))
    load_speakers(speakers)
    notes, output = io.StringIO(), io.StringIO()
    chat = Chat(speakers, Decoding(8), output, notes)
    chat.say("Hi")
    before = output.getvalue(), [list(talk.messages) for talk in chat._talks]
    limits = speakers[refusing].encoder.limits
    speakers[refusing].encoder.limits = dataclasses.replace(limits, positions=120)
    chat.run(iter(["long " * 40]))
    assert "does not fit into the context of" in notes.getvalue()
    assert "the message was not sent" in notes.getvalue()
    assert (output.getvalue(), [talk.messages for talk in chat._talks]) == before
    chat.run(iter(["More"]))  # fits both again
    assert [len(talk.messages) for talk in chat._talks] == [4, 4]


NO_SYSTEM = {
    "raises": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE,
    "omits": TEMPLATE.replace("<|{{ m", "{% if m['role'] != 'system' %}<|{{ m").replace("</s>", "</s>{% endif %}"),
    "too long": TEMPLATE,
}


@pytest.mark.parametrize("kind", NO_SYSTEM)
def test_a_system_text_that_a_model_cannot_take_is_refused_at_once(kind: str, saved: Saved) -> None:
    """The old text and the conversation stay, and a text that fits is taken."""
    (speaker,) = open_speakers(saved("lora"), system="" if kind != "too long" else None)
    speaker.encoder.tokenizer = copy.deepcopy(speaker.encoder.tokenizer)
    speaker.encoder.tokenizer.chat_template = NO_SYSTEM[kind]
    notes = io.StringIO()
    chat = Chat([speaker], Decoding(8), io.StringIO(), notes)
    before = speaker.encoder.system
    chat.run(iter(["/system " + ("long " * 200 if kind == "too long" else "Sing.")]))
    assert notes.getvalue().endswith("; the system text stays as it was)\n")
    assert "a new conversation" not in notes.getvalue()
    assert speaker.encoder.system == before
    chat.run(iter(['/system ""', *(["/system Sing."] if kind == "too long" else [])]))
    assert notes.getvalue().count("a new conversation begins") == (2 if kind == "too long" else 1)
    assert speaker.encoder.ids(Prompt("p", "Hi"), 8)


def test_a_reader_that_closes_the_output_is_no_fault_of_the_model(saved: Saved) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    speakers = open_speakers(saved("lora"))
    load_speakers(speakers)
    with pytest.raises(BrokenPipeError):
        Chat(speakers, Decoding(8), Closed(), io.StringIO()).say("Hi")

"""The files and commands of a document: its fenced blocks.

A block with ``title="name"`` is a file that the reader writes. A block ``console`` (or ``bash``) holds commands, one to
a line, with or without ``$``; a backslash continues a line. The comment ``<!-- not run: reason -->`` on the line before
a block says why a test cannot run it: its commands are then only parsed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?$')
MARK = re.compile(r"^<!-- not run: (?P<reason>[^>]+) -->$")
ANSI_C = re.compile(r"\$'([^']*)'")  # a text of bash with escapes
COMMANDS = ("console", "bash", "sh")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    document: str
    line: int
    language: str
    title: str | None
    reason: str | None  # why it is not run
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The commands as lists of words; empty for a block of another kind."""
        if self.language not in COMMANDS:
            return []
        lines = re.sub(r"\\\n\s*", " ", self.text).splitlines()
        lines = [
            ANSI_C.sub(lambda m: shlex.quote(m[1].replace("\\n", "\n")), line.removeprefix("$ ")) for line in lines
        ]
        words = (shlex.split(line, comments=True) for line in lines)
        return [command for command in words if command]


def blocks(file: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a document."""
    opened: tuple[int, re.Match[str], str | None] | None = None
    lines = file.read_text(encoding="utf-8").splitlines()
    inner: list[str] = []
    for number, line in enumerate(lines, 1):
        if opened is None:
            fence = FENCE.match(line)
            if fence is not None:
                mark = MARK.match(lines[number - 2]) if number > 1 else None
                opened, inner = (number, fence, mark and mark["reason"]), []
        elif line == "```":
            start, fence, reason = opened
            yield Block(file.name, start, fence["language"], fence["title"], reason, "\n".join(inner) + "\n")
            opened = None
        else:
            inner.append(line)
    assert opened is None, f"{file}: the block at line {opened and opened[0]} has no end"


def arguments(command: list[str]) -> list[str] | None:
    """Return the arguments of a command of this package; ``None`` for another program."""
    if command[0] == "smoa-lightning":
        return command[1:]
    return command[3:] if command[:3] == ["python", "-m", "smoa_lightning"] else None

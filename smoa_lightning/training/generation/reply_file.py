"""A file of replies that a killed command continues: complete rows stay, and the settings may not change."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from smoa_lightning.common.errors import UserError
from smoa_lightning.common.file_lock import FileLock
from smoa_lightning.common.paths import near_place
from smoa_lightning.data.tasks import Row
from smoa_lightning.training.generation.prompts import Prompt


class ReplyFile:
    """The output of ``--file``: one row for each prompt, in their order, with the keys of its row and the reply.

    The settings are in a file next to it, ``NAME.settings.json``, which is locked while replies are written.

    Args:
        path: The file.
        settings: What decides the replies, by the names that messages use.
        prompts: All prompts.
        keys: The keys that are added to a row.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], prompts: Sequence[Prompt], keys: Sequence[str]) -> None:
        self.path, self.prompts, self.keys = path, prompts, tuple(keys)
        self.settings_path = path.with_name(f"{path.name}.settings.json")
        self._settings = json.loads(json.dumps(dict(settings)))

    def complete_rows(self) -> int:
        """Return how many rows an earlier command has written, after a comparison with the prompts and settings.

        Raises:
            UserError: The file is of something else, or of other settings.
        """
        if not self.path.exists():
            if not self.path.parent.is_dir():
                folder = self.path.parent
                raise UserError(
                    f"generate: --output {self.path}: the folder {folder} does not exist{near_place(folder)}"
                )
            return 0
        if not self.path.is_file():
            raise UserError(f"generate: --output {self.path} is not a file")
        lines = self._lines()
        if lines or self.path.stat().st_size:
            self._compare_settings()
        if len(lines) > len(self.prompts):
            raise self._foreign(f"it has {len(lines)} rows for {len(self.prompts)} prompts")
        for number, (line, prompt) in enumerate(zip(lines, self.prompts, strict=False), start=1):
            if not self._belongs(line, prompt.row):
                raise self._foreign(f"its row {number} is not a reply to row {number} of the prompts")
        return len(lines)

    def is_complete(self) -> bool:
        """Return whether every prompt has its reply, with no half line after them."""
        return self.complete_rows() == len(self.prompts) and self.path.read_bytes().endswith(b"\n")

    def _lines(self) -> list[bytes]:
        return [line for line in self.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

    def _compare_settings(self) -> None:
        try:
            earlier = json.loads(self.settings_path.read_text(encoding="utf-8"))
            intact = isinstance(earlier, dict)
        except (OSError, ValueError):
            intact = False
        if not intact:
            raise self._foreign(f"it was not written by this command, since there is no {self.settings_path.name}")
        for name in self._settings | earlier:
            old, new = earlier.get(name), self._settings.get(name)
            if old != new:
                change = "" if isinstance(new, str) and len(new) == 64 else f" from {old!r} to {new!r}"
                raise self._foreign(f"{name} changed{change} since its first rows")

    def _belongs(self, line: bytes, row: Row) -> bool:
        try:
            written = json.loads(line)
        except ValueError:
            return False
        if not isinstance(written, dict) or not all(isinstance(written.pop(key, None), str) for key in self.keys):
            return False
        return _line(written) == _line(row)

    def _foreign(self, reason: str) -> UserError:
        return UserError(f"generate: --output {self.path} cannot be continued: {reason}; name a new file")

    def check_lock(self) -> None:
        """Refuse a file that another process writes, before models are loaded.

        Raises:
            UserError: Another process writes the file.
        """
        if self.settings_path.is_file():
            self._lock().release()

    def _lock(self) -> FileLock:
        try:
            return FileLock(self.settings_path)
        except BlockingIOError:
            raise UserError(f"generate: another process writes {self.path}: wait for it, or name a new file") from None

    @contextlib.contextmanager
    def writing(self) -> Iterator[_Rows]:
        """Yield what adds rows after the complete ones; a half line is removed.

        Raises:
            UserError: Another process writes the file.
        """
        with self._lock() as lock:
            done = self.complete_rows()  # a process that has just ended may have written more
            if not done:
                lock.write(json.dumps(self._settings, indent=2) + "\n")
            try:
                with self.path.open("ab") as stream:
                    stream.truncate(sum(map(len, self._lines())))
                    yield _Rows(stream, done)
            except BaseException:
                if self.path.is_file() and not self.path.stat().st_size:  # no reply was written: leave nothing behind
                    self.path.unlink()
                    self.settings_path.unlink(missing_ok=True)
                raise


class _Rows:
    """Adds rows to the end of a file.

    Args:
        stream: The file, opened for appending.
        done: How many rows it has.
    """

    def __init__(self, stream: BinaryIO, done: int) -> None:
        self._stream, self.done = stream, done

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows and flush them to disk."""
        self._stream.write(b"".join(map(_line, rows)))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.done += len(rows)


def _line(row: Row) -> bytes:
    try:
        return f"{json.dumps(row, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:  # half of a pair of surrogates has no UTF-8
        return f"{json.dumps(row)}\n".encode()

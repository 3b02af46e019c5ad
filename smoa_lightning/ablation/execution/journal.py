"""The journal of a study: an Optuna journal file with a checksum in each line."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from smoa_lightning.common.errors import UserError

CHECKSUM = "crc32"  # key of the checksum in a line; Optuna ignores it


class CheckedJournal(JournalFileBackend):
    """A journal file that refuses damaged lines. Lines of an earlier version have no checksum and pass."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines with their checksums."""
        super().append_logs([{**log, CHECKSUM: _checksum(log)} for log in logs])

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Yield the lines from a number on.

        Raises:
            UserError: A line is damaged.
        """
        try:
            for log in super().read_logs(log_number_from):
                if not _is_intact(log):
                    raise ValueError("a checksum is wrong")
                yield log
        except (ValueError, TypeError):
            check_journal(Path(self._file_path))
            raise


def check_journal(file: Path) -> None:
    """Compare each line of a journal with its checksum.

    Raises:
        UserError: A line is damaged; the message has its number and the remedy.
    """
    with file.open("rb") as stream:
        number = next(_damaged(stream), None)
    if number is not None:
        raise UserError(
            f"line {number} of the journal {file} is damaged: restore the file or move it away; without it, the same "
            "command finds all finished runs again in their folders, and forgets only failed attempts"
        )


def _damaged(lines: Iterable[bytes]) -> Iterator[int]:
    """Yield the numbers of damaged lines, from 1. A last line without a line break is still being written."""
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            return
        try:
            log = json.loads(line)
            intact = {"op_code", "worker_id"} <= log.keys() and _is_intact(log)
        except (ValueError, AttributeError, RecursionError):
            intact = False
        if not intact:
            yield number


def _is_intact(log: Mapping[str, Any]) -> bool:
    return CHECKSUM not in log or _checksum(log) == log[CHECKSUM]


def _checksum(log: Mapping[str, Any]) -> int:
    text = json.dumps({key: value for key, value in log.items() if key != CHECKSUM}, separators=(",", ":"))
    return zlib.crc32(json.dumps(json.loads(text), sort_keys=True).encode())

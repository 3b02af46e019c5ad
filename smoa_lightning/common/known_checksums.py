"""The SHA-256 of large files that rarely change: read once, then known by size, times and inode, as git does it.

A run names the weights of its backbone by their checksum in its record, its checkpoint and its adapter folders. Reading
16 GB for each of them takes minutes. A file whose status did not change has the same bytes, with one exception: a file
system gives two changes within the same tick of its clock the same time. So a file that changed shortly before it was
read is read again the next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from smoa_lightning.common.atomic_files import cache_folder, write_json
from smoa_lightning.common.checksums import sha256

SMALL = 4_000_000  # bytes; a smaller file is read each time
TICK = 3.0  # seconds; FAT has the coarsest clock, of two seconds


def known_sha256(file: Path) -> str:
    """Return the SHA-256 of a file; a large file whose status is that of the last time is not read again."""
    before = _status(file)
    if before["size"] < SMALL:
        return sha256(file)
    place = file.resolve()
    note = cache_folder("checksums") / f"{hashlib.sha256(os.fsencode(place)).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["file"] == str(place) and known["status"] == before:
            return str(known["sha256"])
    began = time.time()
    digest = sha256(file)
    if before == _status(file) and max(before["modified"], before["changed"]) / 1e9 < began - TICK:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs only time
            write_json(note, {"file": str(place), "status": before, "sha256": digest})
    return digest


def _status(file: Path) -> dict[str, int]:
    status = file.stat()
    times = {"modified": status.st_mtime_ns, "changed": status.st_ctime_ns}
    return {"size": status.st_size, "inode": status.st_ino, "device": status.st_dev, **times}

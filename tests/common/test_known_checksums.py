"""Checksums of large files: read once while the file's status is the same, read again after any change."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from smoa_lightning.common import known_checksums
from smoa_lightning.common.atomic_files import CACHE, cache_folder
from smoa_lightning.common.known_checksums import known_sha256


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Count the files that are read; every file is large, and was written long ago."""
    found: list[Path] = []

    def read(file: Path) -> str:
        found.append(file)
        return hashlib.sha256(file.read_bytes()).hexdigest()

    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(known_checksums, "SMALL", 1)
    monkeypatch.setattr(known_checksums, "TICK", -60.0)
    monkeypatch.setattr(known_checksums, "sha256", read)
    return found


def expected(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_is_read_once(reads: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"abc")
    assert {known_sha256(file) for _ in range(3)} == {expected(file)}
    assert len(reads) == 1


@pytest.mark.parametrize("keeps_time", [False, True])
def test_a_changed_file_is_read_again(reads: list[Path], tmp_path: Path, keeps_time: bool) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"abc")
    known_sha256(file)
    times = file.stat()
    time.sleep(0.02)  # a tick of the file system's clock
    file.write_bytes(b"abd")  # the same size
    if keeps_time:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert known_sha256(file) == expected(file)
    assert len(reads) == 2


def test_a_replaced_file_is_read_again(reads: list[Path], tmp_path: Path) -> None:
    file, other = tmp_path / "weights.bin", tmp_path / "other.bin"
    file.write_bytes(b"abc")
    other.write_bytes(b"xyz")
    known_sha256(file)
    other.replace(file)
    assert known_sha256(file) == expected(file)


def test_a_file_that_changed_just_now_is_not_remembered(
    reads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_checksums, "TICK", 3.0)
    file = tmp_path / "weights.bin"
    file.write_bytes(b"abc")
    assert known_sha256(file) == known_sha256(file) == expected(file)
    assert len(reads) == 2


def test_a_damaged_note_and_a_cache_without_room_cost_only_time(
    reads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"abc")
    known_sha256(file)
    (note,) = cache_folder("checksums").iterdir()
    for text in ("{", "[]", "{}"):
        note.write_text(text)
        assert known_sha256(file) == expected(file)
    assert len(reads) == 4
    monkeypatch.setenv(CACHE, str(file))  # no folder
    assert known_sha256(file) == expected(file)

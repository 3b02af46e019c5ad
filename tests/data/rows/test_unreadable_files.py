"""What cannot be read is named in one sentence."""

from __future__ import annotations

import gzip
import lzma
import os
from pathlib import Path

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.split_files import split_files

from .formats import ROWS, jsonl, read


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b'{"goal": "a"\n', r"a\.jsonl, row 1: not valid JSON \(.* at column"),
        ("a.jsonl", b'\n{"goal": "\xff"}\n', r"a\.jsonl, line 2: not valid UTF-8 \(byte 0xff at column 11\)\."),
        (
            "a.jsonl",
            b'{"x": ' + b"[" * 100_000 + b"\n",
            r"a\.jsonl, row 1: not readable as JSON \(lists or objects are",
        ),
        ("a.jsonl", b"1" * 5000, r"a\.jsonl, row 1: not readable as JSON \(a whole number has more than 4,300 digits"),
        ("a.json", b"[" * 100_000, r"a\.json: not readable as JSON \(lists or objects are nested too deeply\)"),
        ("a.json", b"[" + b"1" * 5000 + b"]", r"a\.json: not readable as JSON \(a whole number has more than"),
        ("a.csv", b"goal,sol1\na,b,c\n", r"a\.csv, row 1 \(line 2\): has 3 values, but the header names 2"),
        ("a.csv", b'goal,sol1\n"a"b,c\n', r"a\.csv, after line 2: not a valid table"),
        ("a.csv", b'goal,sol1,sol2,label\na,b,c,1\nc,"d\ne,f\n', r"not a valid table \(.*; the row begins at line 3\)"),
        ("a.csv", b"goal,sol1\n\xff,c\n", r"a\.csv, line 2: not valid UTF-8 \(byte 0xff at column 1\)"),
        ("a.csv", "goal,sol1\n".encode("utf-16"), r"a\.csv, line 1: not valid UTF-8 .* it looks like UTF-16"),
        ("a.jsonl", gzip.compress(jsonl(ROWS)), r"not valid UTF-8 .* it looks like gzip, so its name must end in \.gz"),
        ("a.jsonl.gz", jsonl(ROWS), r"a\.jsonl\.gz: cannot be read \(Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(jsonl(ROWS))[:-20], r"a\.jsonl\.gz: cannot be read \(Compressed file ended"),
        ("a.jsonl.xz", lzma.compress(jsonl(ROWS))[:-9], r"a\.jsonl\.xz: cannot be read \("),
        ("a.jsonl.bz2", b"no", r"a\.jsonl\.bz2: cannot be read \(Invalid data stream"),
        ("a.jsonl.zst", b"no frame", r"a\.jsonl\.zst: cannot be read \("),
        ("a.parquet", b"PAR1", r"a\.parquet: not a readable Parquet file"),
        ("a.arrow", b"ARROW1\0\0cut", r"a\.arrow: not a readable Arrow file"),
        ("a.feather", b"none", r"a\.feather: not a readable Arrow file"),
        ("a.zip", b"PK", r"a\.zip: unknown file ending '\.zip'; the endings \.jsonl, .* are read"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_data(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"the folder .*empty holds no data file"):
        read({"train": str(tmp_path / "empty")})


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(ROWS))

    def refused(*_: object) -> None:  # root may read every file, so permissions prove nothing here
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(UserError, match=r"a\.jsonl: cannot be read \(Permission denied\)\.$"):
        read(tmp_path / "a.jsonl", cache=True)


def test_a_split_with_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(ROWS))
    with pytest.raises(UserError, match=r"no file for split 'train'; the splits with files are test\.$"):
        read({"train": [], "test": str(tmp_path / "a.jsonl")})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("how", ["folder", "file", "mapping", "pattern"])
def test_pipes_and_devices_are_refused_without_being_read(kind, how, tmp_path):
    place = tmp_path / "train.jsonl"
    os.mkfifo(place) if kind == "pipe" else place.symlink_to("/dev/zero")
    paths = {"folder": tmp_path, "file": place, "pattern": tmp_path / "*.jsonl", "mapping": place}
    path = {"train": str(place)} if how == "mapping" else str(paths[how])
    with pytest.raises(UserError, match=r"data\.path: .*train\.jsonl is not a regular file"):
        split_files(path, "train")

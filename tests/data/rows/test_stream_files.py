"""Streamed rows of files and of a hub snapshot against the same rows in memory; files that are damaged."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.stream import held_out
from smoa_lightning.data.encoding.encode_examples import Encoding, encode_training
from smoa_lightning.data.rows.row_stream import hub_stream, local_stream
from smoa_lightning.data.rows.sources import Origin, load_split

from ..conftest import character_tokenizer
from ..streams import NUM_ROWS, ROWS, TASK, pass_of, streaming


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same rows in every format."""
    folder = tmp_path_factory.mktemp("rows")
    places = {ending: folder / f"train{ending}" for ending in (".jsonl", ".parquet", ".csv", ".tsv")}
    places[".jsonl"].write_text("\ufeff" + "\n\n".join(json.dumps(row) for row in ROWS) + "\n")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), places[".parquet"], row_group_size=50)
    for ending, delimiter in ((".csv", ","), (".tsv", "\t")):
        with places[ending].open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(ROWS[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)
    return places


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv", ".tsv"])
def test_the_rows_are_those_in_memory(files: dict[str, Path], ending: str) -> None:
    whole, _ = load_split(TASK, "train", Origin("local", path=str(files[ending])))
    stream = streaming(local_stream(files[ending], TASK))
    training = [row for row in whole if not held_out(TASK.group(row), 0, 0.05)]
    assert 0 < len(training) < len(whole) == NUM_ROWS
    examples = [TASK.protocol().example(row) for row in training]
    expected, _ = encode_training(examples, str, character_tokenizer(), Encoding(64))
    for epoch in (0, 3):
        assert pass_of(stream, epoch) == expected
    assert stream.counts["rows"] == 2 * len(expected)
    assert stream.counts["tokens"] == 2 * sum(map(len, expected))
    held = [row.row for row in stream.selection_rows(NUM_ROWS)]
    assert held == [row for row in whole if held_out(TASK.group(row), 0, 0.05)]
    assert stream.selection_rows(3) == stream.selection_rows(NUM_ROWS)[:3]


# ---- only what is needed is read


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_files_are_read_line_by_line(files: dict[str, Path], ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Counter()
    opened = Path.open

    class Counting:
        def __init__(self, stream):
            self.stream = stream

        def __getattr__(self, name):  # the ends of the file are read for its digest
            return getattr(self.stream, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.stream.close()

        def __iter__(self):
            for line in self.stream:
                lines["read"] += bool(line.strip())
                yield line

    monkeypatch.setattr(Path, "open", lambda self, *args, **kwargs: Counting(opened(self, *args, **kwargs)))
    passing = local_stream(files[ending], TASK).read()
    for _ in range(10):
        next(passing)
    passing.close()
    assert lines["read"] == 10 + (ending == ".csv")  # and the header


def test_parquet_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS * 20), file, row_group_size=500)
    monkeypatch.setattr(pyarrow.parquet, "read_table", None)
    pieces = []
    own = pyarrow.parquet.ParquetFile.iter_batches

    def counted(self, **kwargs):
        for piece in own(self, **kwargs):
            pieces.append(piece.num_rows)
            yield piece

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", counted)
    passing = local_stream(file, TASK).read()
    assert next(passing).row == ROWS[0]
    passing.close()
    assert sum(pieces) <= 1000 < len(ROWS) * 20


# ---- what can not be read


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b'{"goal": "a"\n', r"a\.jsonl, row 1: not valid JSON \(.* at column"),
        ("a.jsonl", b'\n{"goal": "\xff"}\n', r"a\.jsonl, row 1 \(line 2\): not valid UTF-8 \(byte 0xff\)"),
        ("a.csv", b"goal,sol1\na,b,c\n", r"a\.csv, row 1 \(line 2\): has 3 values, but the header names 2"),
        ("a.csv", b'goal,sol1\n"a"b,c\n', r"a\.csv, after line 2: not a valid table"),
        ("a.csv", b"goal,sol1\n\xff,c\n", r"a\.csv, after line \d: not a valid table \(.*utf-8"),
        ("a.parquet", b"PAR1", r"a\.parquet: not a readable Parquet file"),
        ("a.json", b"[]", r"a\.json: files with the ending '\.json' can not be streamed; .*nearest: \.jsonl"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        list(local_stream(tmp_path / name, TASK).read())


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        local_stream(tmp_path / "train.jsonl", TASK)


def test_a_snapshot_of_the_hub(tmp_path: Path, files: dict[str, Path]) -> None:
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc" / "train.parquet").write_bytes(files[".parquet"].read_bytes())
    passing = hub_stream(tmp_path / "abc", "someone/piqa", TASK, "train").read()
    assert [row.row for row in passing] == ROWS
    with pytest.raises(UserError, match="someone/piqa@abc validation: these rows can not be streamed"):
        next(hub_stream(tmp_path / "abc", "someone/piqa", TASK, "validation").read())

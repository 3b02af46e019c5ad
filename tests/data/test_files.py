from __future__ import annotations

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest

from smoa_lightning.data.sources import Origin, load_split
from smoa_lightning.data.tasks import PIQA
from smoa_lightning.errors import UserError

GOOD = [
    {"goal": "Dry a cup, well", "sol1": 'use a "towel"', "sol2": "use a sieve", "label": 0},
    {"goal": "Köln\nwith two lines", "sol1": "a", "sol2": "b", "label": 1},
]


def write(path, rows):
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".json":
            path.write_text(json.dumps(rows, indent=1))
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case ".csv" | ".tsv":
            with path.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, rows[0], delimiter="," if path.suffix == ".csv" else "\t")
                writer.writeheader()
                writer.writerows(rows)
    return path


def load(path, **kwargs):
    return load_split(PIQA, "train", Origin("local", path=str(path)), **kwargs)


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet", ".csv", ".tsv"])
def test_every_format_gives_the_same_rows(tmp_path, ending):
    rows, provenance = load(write(tmp_path / f"rows{ending}", GOOD))
    assert rows == GOOD
    digest = load(write(tmp_path / "reference.jsonl", GOOD))[1].sha256
    assert provenance.sha256 == digest
    assert provenance.num_rows == 2
    assert provenance.source == "local"
    assert provenance.location.endswith(f"rows{ending}")


def test_json_of_columns_and_json_lines_under_json(tmp_path):
    columns = tmp_path / "columns.json"
    columns.write_text(json.dumps({name: [row[name] for row in GOOD] for name in GOOD[0]}))
    assert load(columns)[0] == GOOD
    lines = tmp_path / "lines.json"
    lines.write_text("\n".join(map(json.dumps, GOOD)))
    assert load(lines)[0] == GOOD
    single = tmp_path / "single.json"
    single.write_text(json.dumps(GOOD[0]))
    assert load(single)[0] == GOOD[:1]


def test_byte_order_mark_blank_lines_and_windows_line_ends(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join(json.dumps(row).encode() for row in GOOD) + b"\r\n")
    assert load(path)[0] == GOOD


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet", ".csv", ".tsv"])
def test_bad_label_names_file_row_and_field(tmp_path, ending):
    path = write(tmp_path / f"rows{ending}", [GOOD[0], {**GOOD[0], "label": 7}])
    with pytest.raises(UserError, match=rf"rows{ending}, row 2.*field 'label' is 7, but must be one of 0, 1"):
        load(path)


def test_lines_are_named_where_they_are_not_the_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD[0]) + "\n\n" + json.dumps({"goal": "x"}) + "\n")
    with pytest.raises(UserError, match=r"row 2 \(line 3\): field 'sol1' is missing"):
        load(path)
    table = write(tmp_path / "rows.csv", [GOOD[0], {**GOOD[0], "label": "yes"}])
    with pytest.raises(UserError, match=r"row 2 \(line 3\): field 'label' must be a whole number, not text"):
        load(table)


def test_bad_rows_can_be_skipped_and_are_counted(tmp_path):
    path = write(tmp_path / "rows.jsonl", [GOOD[0], {**GOOD[0], "sol1": ""}, GOOD[1]])
    rows, provenance = load(path, bad_rows="skip")
    assert rows == GOOD
    assert provenance.num_bad_rows == 1
    with pytest.raises(UserError, match="no usable rows"):
        load(write(tmp_path / "bad.jsonl", [{"goal": 1}]), bad_rows="skip")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.jsonl", json.dumps(GOOD[0]) + '\n{"goal": "x", "so', r"cut.jsonl, row 2: not valid JSON .*Unterminated"),
        ("list.jsonl", "[1]\n", r"list.jsonl, row 1: the row must be an object"),
        ("cut.json", '[{"goal": "x"},\n {"goal": ', r"cut.json, line 2: not valid JSON"),
        ("word.json", '"word"', "must hold a list of rows or an object of columns"),
        ("uneven.json", '{"goal": ["a", "b"], "sol1": ["c"]}', "not equally long: goal 2, sol1 1"),
        ("none.json", "[]", "holds no rows"),
        ("blank.jsonl", "\n\n", "holds no rows"),
        ("empty.jsonl", "", "the file is empty"),
        ("header.csv", "goal,sol1,sol2,label\n", "holds no rows"),
        ("short.csv", "goal,sol1,sol2,label\na,b,c\n", r"row 1 \(line 2\): has 3 values, but the header names 4"),
        ("quote.csv", 'goal,sol1,sol2,label\n"a,b,c,1\n', "not a valid table"),
        ("rows.parquet", "PAR?", "not a readable Parquet file"),
        ("rows.jsn", "{}", r"unknown file ending '.jsn'.*nearest: .json"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_invalid_utf8_names_the_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(GOOD[0]).encode() + b'\n{"goal": "K\xf6ln"}\n')
    with pytest.raises(UserError, match=r"rows.jsonl, line 2: not valid UTF-8 \(byte 0xf6 at column 12\)"):
        load(path)

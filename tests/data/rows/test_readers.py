from __future__ import annotations

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.sources import Origin, has_split, known_splits, load_split
from smoa_lightning.data.tasks import (
    CHOICE,
    CONVAI2,
    GSM8K,
    IMAGES,
    METAMATH_QA,
    PIQA,
    TASKS,
    Missing,
    task_with_fields,
)

from ..made_rows import ROWS, write_folder

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


def load(path, task=PIQA, split="train", **kwargs):
    rows, provenance = load_split(task, split, Origin("local", path=str(path)), **kwargs)
    return list(rows), provenance


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
        ("uneven.json", '{"goal": ["a", "b"], "sol1": ["c"]}', "different lengths: goal 2, sol1 1"),
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
def test_damaged_files_are_refused(tmp_path, name, content, message):
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


# ---- tasks whose rows are not those of the file


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_rows_of_every_task(tmp_path, name):
    task = TASKS[name]
    write_folder(tmp_path, name)
    for split in ("train", task.report_split):
        rows, provenance = load(tmp_path, task, split)
        assert provenance.num_rows == len(rows) > 0
        examples = [protocol.example(row) for protocol in task.protocols for row in rows]
        texts = [getattr(example, "texts", None) or example.target for example in examples if task not in IMAGES]
        assert all(text[-1].strip() for text in texts)


def test_a_dialogue_is_counted_by_its_replies(tmp_path):
    three, one = ROWS["convai2"][2], ROWS["convai2"][0]
    path = write(tmp_path / "train.jsonl", [three, {"personality": [], "dialog": ["a", "b"]}, one])
    rows, provenance = load(path, CONVAI2, bad_rows="skip")
    assert (len(rows), provenance.num_rows, provenance.num_bad_rows) == (4, 4, 1)
    assert [len(row["history"]) for row in rows] == [1, 3, 5, 1]
    with pytest.raises(UserError, match=r"train.jsonl, row 2: field 'personality' is a list of 0"):
        load(path, CONVAI2)


DIALOGUES = "1 your persona: i sing.\n2 hi\tgood day\n\n1 your persona: i dance.\n2 hello\thi\n3 why ?\tno idea\n"


def test_text_in_the_layout_of_the_task(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text(DIALOGUES)
    rows, provenance = load(tmp_path, CONVAI2)
    assert [row["reply"] for row in rows] == ["good day", "hi", "no idea"]
    assert provenance.location == str(path)
    path.write_text(DIALOGUES.replace("i dance.", " "))
    with pytest.raises(
        UserError, match=r"train.txt, row 2 \(line 4\): field 'personality' is a list whose entry 1 must"
    ):
        load(path, CONVAI2)
    path.write_text(DIALOGUES.replace("3 why", "4 why"))
    with pytest.raises(UserError, match=r"train.txt, line 6: has number 4 after 2; a dialogue counts from 1\.$"):
        load(path, CONVAI2)
    path.write_bytes(DIALOGUES.encode() + b"4 K\xf6ln\tja\n")
    with pytest.raises(UserError, match=r"train.txt, line 7: not valid UTF-8 \(byte 0xf6 at column 4\)"):
        load(path, CONVAI2)
    with pytest.raises(UserError, match=r"task 'piqa' has no plain-text layout; the endings .jsonl, .json, "):
        load(path)


def test_tables_of_other_names(tmp_path):
    task = task_with_fields(CHOICE, {"prompt": "q", "choices": ["one", "two"], "label": "key"})
    path = tmp_path / "train.csv"
    path.write_text("q,one,two,key\nHot?,fire,ice,0\nCold?,[1],ice,ice\n")
    rows = load(path, task)[0]
    assert [CHOICE.likelihood.example(row).target for row in rows] == [("Hot?", " fire"), ("Cold?", " ice")]
    path.write_text("q,one,key\nHot?,fire,0\n")
    with pytest.raises(
        UserError, match=r"row 1 \(line 2\): field 'two', which data.fields names for 'choices', is missing"
    ):
        load(path, task)
    piqa = task_with_fields(PIQA, {"label": "gold", "goal": "label"})
    path.write_text("label,sol1,sol2,gold\nDry a cup,a,b,1\n")
    assert load(path, piqa)[0] == [{"goal": "Dry a cup", "sol1": "a", "sol2": "b", "label": 1}]


def test_splits_that_may_be_asked_for(tmp_path):
    assert known_splits(GSM8K, "hub") == ("train", "test")
    assert (
        set(known_splits(GSM8K, "local")) == set(known_splits(METAMATH_QA, "auto")) == {"train", "validation", "test"}
    )
    write(tmp_path / "train.jsonl", ROWS["gsm8k"])
    write(tmp_path / "valid.jsonl", ROWS["gsm8k"])
    local = Origin("local", path=str(tmp_path))
    assert has_split(GSM8K, "validation", local)  # not on the hub, but here
    with pytest.raises(UserError, match="no file for split 'test'"):
        has_split(GSM8K, "test", local)
    assert not has_split(METAMATH_QA, "test", local)
    assert not has_split(METAMATH_QA, "validation", Origin("hub"))
    assert has_split(METAMATH_QA, "validation", Origin("embedded"))
    files = Origin("local", path={"train": str(tmp_path / "train.jsonl")})
    assert not has_split(METAMATH_QA, "validation", files)


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("damage", ["missing", "null", "number"])
def test_a_damaged_field_of_every_task_names_file_row_and_field(tmp_path, name, damage):
    task = TASKS[name]
    for field, wanted in task.schema.items():
        if isinstance(wanted, Missing) and damage != "number":
            continue  # such a field may be left out, or be null
        rows = [dict(row) for row in ROWS[name][:3]]
        rows[1] |= {field: None if damage == "null" else 9.5}
        if damage == "missing":
            del rows[1][field]
        path = write(tmp_path / "train.jsonl", rows)
        with pytest.raises(UserError, match=rf"train.jsonl, row 2: field '{field}' ") as caught:
            load(path, task)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["commonsense_instruct", "metamath_qa", "choice", "instruction"])
def test_fields_that_may_be_left_out(tmp_path, name):
    task = TASKS[name]
    optional = [field for field, wanted in task.schema.items() if isinstance(wanted, Missing)]
    full = {**ROWS[name][0], **dict.fromkeys(optional)}
    bare = {field: value for field, value in full.items() if field not in optional}
    assert (
        load(write(tmp_path / "full.jsonl", [full]), task)[0] == load(write(tmp_path / "bare.jsonl", [bare]), task)[0]
    )

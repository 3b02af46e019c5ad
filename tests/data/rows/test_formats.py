"""Every kind of file that people have gives the same rows."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import datasets
import fsspec
import pandas
import pyarrow as pa
import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.sources import Origin, load_split
from smoa_lightning.data.tasks import CHOICE, CONVAI2, PIQA

from .formats import COMPRESS, ROWS, TABLES, TEXTS, jsonl, parquet, read, table


@pytest.mark.parametrize("ending", [*TEXTS, *TABLES, ".JSONL", ".Csv", ".PARQUET"])
def test_endings(tmp_path: Path, ending: str) -> None:
    make = {**TEXTS, **TABLES}.get(ending) or {**TEXTS, **TABLES}[ending.lower()]
    (tmp_path / f"train{ending}").write_bytes(make(ROWS))
    assert read(tmp_path) == read(tmp_path / f"train{ending}") == ROWS


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("ending", TEXTS)
def test_compressed_text(tmp_path: Path, ending: str, compression: str) -> None:
    (tmp_path / f"train{ending}{compression}").write_bytes(COMPRESS[compression](TEXTS[ending](ROWS)))
    assert read(tmp_path) == ROWS
    (tmp_path / f"validation{ending}{compression}".upper()).write_bytes(COMPRESS[compression](TEXTS[ending](ROWS[:2])))
    assert read(tmp_path, "validation") == ROWS[:2]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "mac"])
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv"])
def test_byte_order_marks_and_line_ends(tmp_path: Path, ending: str, end: str, mark: bytes) -> None:
    make = {".jsonl": jsonl, ".json": jsonl, ".csv": lambda rows, end: table(rows, ",", end)}
    content = make.get(ending, lambda rows, end: table(rows, "\t", end))(ROWS, end=end)
    (tmp_path / f"train{ending}").write_bytes(mark + content)
    assert read(tmp_path) == ROWS


def test_old_mac_line_ends_in_a_text_layout(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"1 your persona: i sing.\r2 hi\tgood day\r3 so ?\tyes\r")
    assert [row["reply"] for row in read(tmp_path, task=CONVAI2)] == ["good day", "yes"]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_tables_separated_otherwise(tmp_path: Path, delimiter: str) -> None:
    rows = [{"goal": "a, b", "sol1": "c", "sol2": f"d{delimiter}e", "label": 1}]
    (tmp_path / "train.csv").write_bytes(table(rows, delimiter))
    assert read(tmp_path) == rows
    quoted = table(rows, delimiter).replace(b"goal", b'"goal"').replace(b"label", b'"label, of it"')
    (tmp_path / "train.csv").write_bytes(quoted)
    with pytest.raises(UserError, match=r"field 'label' is missing .the row has goal, sol1, sol2, label, of it"):
        read(tmp_path)


def test_values_of_json_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("\n".join(json.dumps(row, indent=2) for row in ROWS))
    assert read(tmp_path) == ROWS
    (tmp_path / "train.json").write_text(json.dumps(ROWS[0], indent=2) + "\n{\n\n")
    with pytest.raises(UserError, match=r"train\.json, line 9: not valid JSON"):
        read(tmp_path)


def test_long_fields_and_lists_as_text(tmp_path: Path) -> None:
    long = {**ROWS[0], "sol1": "word " * 60_000}
    (tmp_path / "train.csv").write_bytes(table([long]))
    assert read(tmp_path) == [long]
    frame = pandas.DataFrame({"prompt": ["it's"], "choices": [["ice's", 'f"ire']], "label": [1]})
    frame.to_csv(tmp_path / "train.csv", index=False)
    assert read(tmp_path, task=CHOICE)[0]["choices"] == ["ice's", 'f"ire']
    frame["choices"] = [str(pandas.Series(["ice", "fire"]).to_numpy())]
    frame.to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(UserError, match="field 'choices' is text, but must be a list of texts"):
        read(tmp_path, task=CHOICE)


# ---- columns of Arrow


def test_columns_of_many_types(tmp_path: Path) -> None:
    content = pa.table(
        {
            "prompt": pa.array(["p", "q"]).dictionary_encode(),
            "choices": pa.array([["a", "b"], ["c", "d"]], pa.large_list(pa.string())),
            "label": pandas.Categorical(["b", "c"]),
            "nested": [{"a": 1, "b": [None]}, {"a": None, "b": []}],
            "far": pa.array([300_000_000_000_000, None], pa.timestamp("ms")),
            "exact": pa.array([1, 2**62 + 1], pa.timestamp("ns")),
            "span": pa.array([123456789, 1], pa.duration("ns")),
            "nothing": pa.nulls(2),
        }
    )
    expected = [
        {"prompt": prompt, "choices": choices, "label": label, "labels": []}
        for prompt, choices, label in (("p", ["a", "b"], "b"), ("q", ["c", "d"], "c"))
    ]
    pa.parquet.write_table(content, tmp_path / "train.parquet")
    with pa.ipc.new_file(tmp_path / "validation.arrow", content.schema) as writer:
        writer.write_table(content)
    assert read(tmp_path, task=CHOICE) == read(tmp_path, "validation", CHOICE) == expected
    renamed = content.rename_columns({"prompt": "old", "far": "prompt"})
    pa.parquet.write_table(renamed, tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"train\.parquet, row 1: field 'prompt' must be text, not TimestampScalar"):
        read(tmp_path, task=CHOICE)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".arrow"])
def test_two_columns_of_one_name(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"train{ending}"
    names, values = ["goal", "sol1", "goal", "sol2", "label"], ["a", "b", "c", "d", "1"]
    if ending == ".csv":
        path.write_text(",".join(names) + "\n" + ",".join(values))
    else:
        content = pa.Table.from_arrays([pa.array([value]) for value in values], names=names)
        with pa.ipc.new_file(path, content.schema) as writer:
            writer.write_table(content)
        if ending == ".parquet":
            pa.parquet.write_table(content, path)
    with pytest.raises(UserError, match=rf"train{ending}: two columns are named 'goal'; rename or remove one\."):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("train.jsonl", json.dumps(ROWS[0]) + '\n{"label": 0, "label": 1}\n', r"train\.jsonl, row 2"),
        ("train.jsonl", '{"goal": "b", "more": [{"label": 0, "label": 1}]}\n', r"train\.jsonl, row 1"),
        ("train.json", '[{"goal": "b",\n "label": 0, "label": 1}]', r"train\.json"),
        ("train.json", '{"goal": ["b"],\n "label": [0], "label": [1]}', r"train\.json"),
    ],
)
def test_a_key_that_appears_twice(tmp_path: Path, name: str, content: str, place: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=rf"{place}: the key 'label' appears twice in one object; remove one\.$"):
        read(tmp_path)


# ---- folders


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    whole = datasets.Dataset.from_list(ROWS)
    parts = {"train": whole, "validation": whole.select([4, 1])}  # the second has indices in addition to its table
    whole.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "several")
    return tmp_path


def test_folders_of_save_to_disk(saved: Path) -> None:
    assert read(saved / "one") == read(saved / "several") == ROWS
    assert read({"test": str(saved / "one")}, "test") == ROWS
    assert read(saved / "several", "validation") == [ROWS[4], ROWS[1]]
    with pytest.raises(UserError, match="holds training rows alone, so there is no split 'validation'"):
        read(saved / "one", "validation")
    (saved / "one" / "data-00001-of-00002.arrow").write_bytes(b"no table")
    with pytest.raises(UserError, match=r"one: not a readable folder of save_to_disk \(.*\)\.$"):
        read(saved / "one")


def parts(folder: Path, names: dict[str, slice]) -> Path:
    for name, rows in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jsonl(ROWS[rows]))
    return folder


HEAD, TAIL, SOME = slice(0, 3), slice(3, None), slice(1, 3)
FOLDERS = {
    "parts": {"train-00000-of-00002.jsonl": HEAD, "train-00001-of-00002.jsonl": TAIL, "dev.jsonl": SOME},
    "data": {"data/train-0.jsonl": HEAD, "data/train-1.jsonl": TAIL, "data/validation-1.jsonl": SOME},
    "from one": {"train-1-of-2.jsonl": HEAD, "train-2-of-2.jsonl": TAIL, "val_part0.jsonl": SOME},
    "sub-folders": {"train/a.jsonl": HEAD, "train/b.jsonl": TAIL, "valid/x.jsonl": SOME, "train/_x.jsonl": SOME},
    "upper case": {"Train/a.JSONL": HEAD, "Train/b.jsonl": TAIL, "VALIDATION.jsonl": SOME},
    "others": {"train.jsonl": slice(None), "validation.jsonl": SOME, "train-old.jsonl": SOME, ".train.csv": SOME},
}


@pytest.mark.parametrize("name", FOLDERS)
def test_layouts_of_a_folder(tmp_path: Path, name: str) -> None:
    parts(tmp_path, FOLDERS[name])
    assert read(tmp_path) == ROWS
    assert read(tmp_path, "validation") == ROWS[SOME]


def test_parts_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    parts(tmp_path, {f"train-{n}.jsonl": slice(place, place + 1) for place, n in enumerate([0, 1, 2, 9, 10, 11, 100])})
    assert read(tmp_path) == read(tmp_path / "train-*.jsonl") == ROWS


def test_patterns_and_lists(tmp_path: Path) -> None:
    parts(tmp_path, {"a/1.jsonl": HEAD, "b/2.jsonl": TAIL})
    assert read(tmp_path / "*" / "*.jsonl") == ROWS
    assert read({"train": [str(tmp_path / "b"), str(tmp_path / "a" / "1.jsonl")]}) == [*ROWS[TAIL], *ROWS[HEAD]]
    assert read({"train": str(tmp_path / "?" / "[0-9].jsonl")}) == ROWS
    (tmp_path / "[x].jsonl").write_bytes(jsonl(ROWS))
    assert read(tmp_path / "[x].jsonl") == ROWS
    with pytest.raises(UserError, match=r"data\.path: no file matches .*none\*\.csv\."):
        read(tmp_path / "none*.csv")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["train.jsonl", "train.csv"], r"split 'train' is ambiguous: \S*train.csv and \S*train.jsonl\."),
        (["train.jsonl", "train.jsonl.gz"], r"split 'train' is ambiguous: \S*train.jsonl and \S*train.jsonl.gz\."),
        (["train.jsonl", "train/a.jsonl"], r"split 'train' is ambiguous: \S*a.jsonl and \S*train.jsonl\."),
        (["train-0.jsonl", "train-1.csv"], r"split 'train' is ambiguous: \S*train-0.jsonl and \S*train-1.csv\."),
        (["train/a.jsonl", "train/b.csv"], r"train holds files of several formats \(a.jsonl and b.csv\); name the"),
        (["train-0-of-3.jsonl", "train-2-of-3.jsonl"], r"part 1 of 3 parts of train is missing\."),
        (["train-new.jsonl", "x.csv"], r"no file for split 'train' .such as train.jsonl. in \S*; nearest: train-new"),
        (["train/notes.md"], r"no file for split 'train' .* it holds no data file\."),
        (["cola/train.jsonl"], r"no file for split 'train' .* it holds no data file; \S+/cola does\."),
        (["a/train.jsonl", "b/train.csv", "c/train.csv"], r"it holds no data file; \S+/a and \S+/b do\."),
    ],
)
def test_ambiguous_folders_are_refused(tmp_path: Path, names: list[str], sentence: str) -> None:
    parts(tmp_path, dict.fromkeys(names, HEAD))
    with pytest.raises(UserError, match=sentence) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_error_names_the_file_of_the_row(tmp_path: Path) -> None:
    parts(tmp_path, {"train-0.jsonl": HEAD, "train-1.jsonl": TAIL})
    with (tmp_path / "train-1.jsonl").open("a") as stream:
        stream.write('\n{"goal": 1}')
    with pytest.raises(UserError, match=r"train-1\.jsonl, row 5 \(line 6\): field 'goal' must be text"):
        read(tmp_path)
    rows, provenance = load_split(PIQA, "train", Origin("local", path=str(tmp_path)), "skip")
    assert list(rows) == ROWS
    assert provenance.num_bad_rows == 1
    assert provenance.location == f"{tmp_path / 'train-0.jsonl'} and 1 more"


# ---- other file systems


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "train.jsonl").write_bytes(jsonl(ROWS))
    (tmp_path / "web" / "train.csv.gz").write_bytes(gzip.compress(table(ROWS)))
    (tmp_path / "web" / "train.parquet").write_bytes(parquet(ROWS))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path / "web"))

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_urls(tmp_path: Path, web: str) -> None:
    memory = fsspec.filesystem("memory")
    for name, content in (("train-0.jsonl", jsonl(ROWS[HEAD])), ("train-1.jsonl", jsonl(ROWS[TAIL]))):
        memory.pipe(f"/rows/{name}", content)
    memory.pipe("/rows/dev.csv.gz", gzip.compress(table(ROWS)))
    try:
        assert read("memory://rows") == read("memory://rows/train-*.jsonl") == ROWS
        assert read("memory://rows", "validation", cache=True) == read("memory://rows/dev.csv.gz") == ROWS
        memory.pipe("/rows/dev.csv.gz", gzip.compress(table(ROWS[:2])))
        assert read("memory://rows", "validation", cache=True) == ROWS[:2]
        with pytest.raises(UserError, match=r"memory://rows/none\.jsonl does not exist"):
            read("memory://rows/none.jsonl")
    finally:
        memory.rm("/rows", recursive=True)
    parts(tmp_path, {"train.jsonl": slice(None)})
    assert read(f"file://{tmp_path}") == read(f"file://{tmp_path}/train.jsonl") == ROWS
    for name in ("train.jsonl", "train.csv.gz", "train.parquet"):
        assert read(f"{web}/{name}", cache=True) == ROWS
    with pytest.raises(UserError, match=r"/none\.jsonl does not exist"):
        read(f"{web}/none.jsonl")
    with pytest.raises(UserError, match=r"no file system for nowhere://rows is installed \(Protocol not known"):
        read("nowhere://rows")

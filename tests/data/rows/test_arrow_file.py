"""Tables come back as they were, and nothing that goes wrong on disk stops a run."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from smoa_lightning.common import atomic_files as files
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows import arrow_file
from smoa_lightning.data.rows.arrow_file import ArrowTable, in_cache, in_memory, in_scratch_file, key_of
from smoa_lightning.data.rows.arrow_writer import BATCH, Writer

SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.large_string()), ("flags", pa.list_(pa.bool_()))])
FACTS = {"name": "the café’s\n\0", "share": 0.5}


def filled(count: int) -> Callable[[Writer], dict]:
    def fill(writer: Writer) -> dict:
        for number in range(count):
            writer.add(number, None if number % 3 == 2 else f"ß{number}", [number % 2 == 0] * (number % 3))
        return FACTS

    return fill


def forbidden(writer: Writer) -> dict:
    raise AssertionError("made again")


def check(table: ArrowTable, count: int) -> None:
    assert len(table) == count
    assert {name: table.facts[name] for name in FACTS} == FACTS
    assert table.column("number").tolist() == list(range(count))
    for row in {0, count // 2, count - 1} if count else ():
        batch, place = table.place(row)
        assert batch.column(1)[place].as_py() == (None if row % 3 == 2 else f"ß{row}")
        assert batch.column(2)[place].as_py() == [row % 2 == 0] * (row % 3)


@pytest.mark.parametrize("count", [0, 1, BATCH - 1, BATCH, 2 * BATCH + 5])
def test_rows_come_back_as_they_were(tmp_path: Path, count: int) -> None:
    for table in (
        in_memory(SCHEMA, filled(count)),
        in_scratch_file(SCHEMA, filled(count)),
        in_cache(tmp_path, "key", SCHEMA, filled(count)),
        in_cache(tmp_path, "key", SCHEMA, forbidden),
    ):
        check(table, count)
        table.release()
        check(table, count)
        check(pickle.loads(pickle.dumps(table)), count)  # what a worker process without shared memory gets
    assert [file.name for file in tmp_path.iterdir()] == ["key.arrow"]


def test_a_scratch_file_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = in_scratch_file(SCHEMA, filled(5000))
    assert list(tmp_path.iterdir()) == []
    check(table, 5000)


def test_an_error_while_writing_leaves_no_file(tmp_path: Path) -> None:
    def fill(writer: Writer) -> dict:
        filled(5000)(writer)
        raise ValueError("row 5001")

    with pytest.raises(ValueError, match="row 5001"):
        in_cache(tmp_path, "key", SCHEMA, fill)
    assert list(tmp_path.iterdir()) == []


# ---- the key


def test_each_part_changes_the_key() -> None:
    base = {"task": "piqa", "version": 1, "sha256": "ab", "indices": [1, 2]}
    others = {"task": "boolq", "version": 2, "sha256": None, "indices": [2, 1]}
    keys = {key_of(**{**base, name: value}) for name, value in others.items()}
    keys |= {key_of(**base), key_of(**base, more=1)}
    assert len(keys) == len(others) + 2
    assert key_of(**dict(reversed(base.items()))) in keys
    with pytest.raises(TypeError, match="not JSON serializable"):
        key_of(a=object())
    with pytest.raises(ValueError, match="not JSON compliant"):
        key_of(a=float("nan"))


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SMOA_LIGHTNING_CACHE", raising=False)
    assert files.cache_folder("tokens") == tmp_path / ".cache" / "smoa_lightning" / "tokens"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert files.cache_folder("tokens") == tmp_path / "x" / "smoa_lightning" / "tokens"
    monkeypatch.setenv("SMOA_LIGHTNING_CACHE", "~/mine")
    assert files.cache_folder("tokens") == tmp_path / "mine" / "tokens"


# ---- what goes wrong


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    place = data.index(b"1500")  # the text of a row
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def arrow(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(pa.table({"number": [1], "text": ["a"], "flags": [[True]]}, SCHEMA))
    return sink.getvalue().to_pybytes()


def foreign(data: bytes) -> bytes:
    """A whole file with its checksum, but not one of ours."""
    content = arrow(data)
    return content + 2 * arrow_file.zlib.crc32(content).to_bytes(4, "little")


@pytest.mark.parametrize(
    "damage", [cut, flip, arrow, foreign, lambda data: b"", lambda data: b"no table", lambda data: data[:-1]]
)
@pytest.mark.usefixtures("shown_notes")
def test_a_damaged_file_is_reported_and_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    in_cache(tmp_path, "key", SCHEMA, filled(2000))
    file = tmp_path / "key.arrow"
    file.write_bytes(damage(file.read_bytes()))
    check(in_cache(tmp_path, "key", SCHEMA, filled(2000)), 2000)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{file} is damaged or not a file of rows" in said
    check(in_cache(tmp_path, "key", SCHEMA, forbidden), 2000)
    assert capsys.readouterr().err == ""


def test_large_files_are_checked_by_their_structure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_file, "CHECKED", 1000)
    in_cache(tmp_path, "key", SCHEMA, filled(2000))
    file = tmp_path / "key.arrow"
    file.write_bytes(cut(file.read_bytes()))
    check(in_cache(tmp_path, "key", SCHEMA, filled(2000)), 2000)


@pytest.mark.parametrize("checked", [arrow_file.CHECKED, 1000], ids=["small", "large"])
def test_each_changed_byte_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: int) -> None:
    """Also in a file that is too large to be compared when it is opened; the next run makes it again."""
    monkeypatch.setattr(arrow_file, "CHECKED", checked)
    in_cache(tmp_path, "key", SCHEMA, filled(3000))
    file = tmp_path / "key.arrow"
    content = file.read_bytes()
    made = []

    def fill(writer: Writer) -> dict:
        made.append(1)
        return filled(3000)(writer)

    later = 0
    for place in random.Random(0).sample(range(len(content) - 4 * (checked == 1000)), 50):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        made.clear()
        table = in_cache(tmp_path, "key", SCHEMA, fill)
        if not made:
            with pytest.raises(UserError, match=r"key.arrow was damaged: the checksum of rows .* made again"):
                check(table, 3000)
            later += 1
            assert not file.exists()
        check(in_cache(tmp_path, "key", SCHEMA, fill), 3000)
        assert made == [1]
        assert file.read_bytes() == content
    assert bool(later) is (checked == 1000)


@pytest.mark.usefixtures("shown_notes")
def test_a_file_of_other_columns_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_cache(tmp_path, "key", SCHEMA.remove(1), lambda writer: FACTS)
    check(in_cache(tmp_path, "key", SCHEMA, filled(3)), 3)
    assert "(it has different columns); it is made again" in capsys.readouterr().err


@pytest.mark.usefixtures("shown_notes")
def test_rows_are_read_without_a_writable_cache_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    check(in_cache(tmp_path / "file" / "rows", "key", SCHEMA, filled(30)), 30)
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert "rows cannot be saved in" in said
    assert "SMOA_LIGHTNING_CACHE" in said


def test_two_processes_at_once_have_one_key(tmp_path: Path) -> None:
    """The other one hashes texts otherwise; this one writes and reads until the other has ended."""
    code = f"""
import pyarrow as pa
from pathlib import Path
from smoa_lightning.data.rows.arrow_file import in_cache, key_of
def fill(writer):
    for number in range(2000): writer.add(number)
    return {{}}
key = key_of(b={{'x': 'ß', 'a': None}}, a=[1, 2.5, True])
schema = pa.schema([("number", pa.int64())])
for _ in range(20):
    assert in_cache(Path({str(tmp_path)!r}), key, schema, fill).column("number").sum() == 1999 * 1000
    (Path({str(tmp_path)!r}) / f"{{key}}.arrow").unlink(missing_ok=True)
print(key)
"""

    def fill(writer: Writer) -> dict:
        for number in range(2000):
            writer.add(number)
        return {}

    key, schema = key_of(a=[1, 2.5, True], b={"x": "ß", "a": None}), pa.schema([("number", pa.int64())])
    command, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONHASHSEED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as other:
        while other.poll() is None:
            assert in_cache(tmp_path, key, schema, fill).column("number").sum() == 1999 * 1000
            (tmp_path / f"{key}.arrow").unlink(missing_ok=True)
            time.sleep(0.005)  # on one core the other one is to come to its turn
        assert (other.communicate(), other.returncode) == ((f"{key}\n", ""), 0)
    assert list(tmp_path.iterdir()) == []


def test_of_several_processes_one_makes_a_table_and_the_others_wait(tmp_path: Path) -> None:
    code = f"""
import time
import pyarrow as pa
from pathlib import Path
from smoa_lightning.data.rows.arrow_file import in_cache
folder = Path({str(tmp_path)!r})
def fill(writer):
    print("made", flush=True)
    time.sleep(1)
    writer.add(7)
    return {{}}
assert in_cache(folder / "rows", "key", pa.schema([("number", pa.int64())]), fill).column("number").tolist() == [7]
"""
    command = [sys.executable, "-c", code]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(3)]
    said = [other.communicate()[0] for other in others]
    assert [other.returncode for other in others] == [0] * 3
    assert "".join(said).count("made\n") == 1
    assert [file.name for file in (tmp_path / "rows").iterdir()] == ["key.arrow"]

"""The shipped rows are those that the generators make."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smoa_lightning import embedded
from tools.embedded import write_rows


def unpacked(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): gzip.decompress(path.read_bytes()) for path in files}


def test_generators_give_the_shipped_files_byte_for_byte():
    made = dict(write_rows.files())
    shipped = unpacked(embedded.rows_folder())
    assert sorted(made) == sorted(shipped)  # none is missing, none is left over
    assert [name for name in made if made[name] != shipped[name]] == []


def test_generators_and_package_name_the_same_tasks():
    assert (*write_rows.GENERATORS, "digits") == embedded.TASKS  # these are in the wheel of scikit-learn


def test_files_read_back_are_the_generated_rows_with_their_types_and_order():
    for task, generate in write_rows.GENERATORS.items():
        for split in embedded.SPLITS:
            assert repr(embedded.rows(task, split)) == repr(generate(split))


@pytest.mark.slow  # each session has another seed, and compares the rows with the shipped ones
def test_no_generator_depends_on_the_seed_of_hashes():
    code = "import zlib; from tools.embedded.write_rows import files; print(zlib.crc32(repr(list(files())).encode()))"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env={**environment, "PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_two_writes_give_identical_files_without_a_time_stamp(tmp_path):
    write_rows.main(["--output", str(tmp_path / "one")])
    write_rows.main(["--output", str(tmp_path / "two")])
    for path in (tmp_path / "one").rglob("*.gz"):
        content = path.read_bytes()
        assert content == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
        assert content[3:8] == bytes(5)  # neither a name nor a time in the header


def test_a_file_changes_with_its_content_only(tmp_path):
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b"{}\n", compresslevel=1, mtime=1))  # packed by another tool
    before = file.read_bytes()
    assert not write_rows.write(file, b"{}\n")
    assert file.read_bytes() == before
    assert write_rows.write(file, b'{"a": 1}\n')
    assert gzip.decompress(file.read_bytes()) == b'{"a": 1}\n'

"""Runs that start at the same time never share a folder, and the same run is never done twice at once."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smoa_lightning.common.atomic_files import write_json
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.file_lock import FileLock
from smoa_lightning.records.claim import claim, run_lock
from smoa_lightning.records.record import RunInProgress

START = """
import sys, time
from pathlib import Path
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.claim import claim
base, begin, signatures = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
time.sleep(max(0, begin - time.time()))
for signature in signatures:
    try:
        got = claim(base, signature, exact=False)
        print(got.target.path.name, flush=True)
        time.sleep(0.2)
        got.target.path.joinpath("record.json").write_text(
            '{"name": "n", "signature": "%s", "status": "finished"}' % signature)
        got.release()
    except UserError as error:
        print(type(error).__name__, flush=True)
"""


def together(base: Path, *signatures: list[str]) -> list[list[str]]:
    """Start a process for each list of signatures, all at the same moment; return what each printed."""
    begin = str(time.time() + 1.5)
    started = [
        subprocess.Popen([sys.executable, "-c", START, str(base), begin, *own], stdout=subprocess.PIPE, text=True)
        for own in signatures
    ]
    return [process.communicate(timeout=60)[0].split() for process in started]


def test_different_runs_get_different_folders(tmp_path: Path) -> None:
    found = together(tmp_path / "a", *([f"{process}-{run}" for run in range(5)] for process in range(4)))
    names = [name for own in found for name in own]
    assert sorted(names) == sorted(f"version_{number}" for number in range(20))


def test_of_identical_runs_one_is_refused(tmp_path: Path) -> None:
    found = together(tmp_path / "a", *(["s"] for _ in range(4)))
    names = sorted(name for (name,) in found)
    assert names[-1] == "version_0"
    assert set(names[:-1]) == {"RunInProgress"}


def test_identical_exact_folders(tmp_path: Path) -> None:
    with_record = claim(tmp_path / "x", "s", exact=True)
    with pytest.raises(RunInProgress):
        claim(tmp_path / "x", "s", exact=True)
    write_json(tmp_path / "x" / "record.json", {"name": "n", "status": "finished", "signature": "s"})
    with_record.release()
    assert claim(tmp_path / "x", "s", exact=True).target.path.name == "x-v2"


@pytest.mark.parametrize("exact", [False, True])
def test_a_start_without_a_record_leaves_nothing(tmp_path: Path, exact: bool) -> None:
    claim(tmp_path / "runs" / "name", "s", exact).release()
    assert list(tmp_path.iterdir()) == []


def test_files_of_the_user_remain(tmp_path: Path) -> None:
    got = claim(tmp_path / "name", "s", exact=False)
    (got.target.path / "notes.txt").touch()
    got.release()
    assert (got.target.path / "notes.txt").is_file()
    (tmp_path / "mine").mkdir()
    claim(tmp_path / "mine", "s", exact=True).release()
    assert (tmp_path / "mine").is_dir()  # the claim did not create it
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds no run"):
        claim(tmp_path / "mine", "s", exact=True)


def test_a_run_that_died_before_its_record_keeps_its_folder(tmp_path: Path) -> None:
    claim(tmp_path / "a", "s", exact=False)._lock.release()  # as a kill does
    assert claim(tmp_path / "a", "other", exact=False).target.path.name == "version_1"
    assert claim(tmp_path / "a", "s", exact=False).target.path.name == "version_0"


def test_a_forked_process_does_not_hold_the_lock_of_a_dead_one(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    holder = os.fork()
    if holder == 0:
        lock = FileLock(tmp_path / "lock")
        if os.fork() == 0:
            time.sleep(10)  # a worker of a data loader
            os._exit(0)
        os.write(writing, b"locked")
        os.kill(os.getpid(), 9)
        lock.release()
    os.close(writing)
    assert os.read(reading, 6) == b"locked"
    os.waitpid(holder, 0)
    with FileLock(tmp_path / "lock"), pytest.raises(BlockingIOError):
        FileLock(tmp_path / "lock")
    FileLock(tmp_path / "lock").release()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("exact", [False, True])
def test_a_file_system_without_locks_is_refused(
    exact: bool, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(UserError, match=r"the file system of '.*' has no file locks \(.*\): choose a folder"):
        claim(tmp_path / "runs" / "name", "s", exact)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_a_lock_stay_errors_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OSError, match="Input/output error"):
        run_lock(tmp_path)


def test_the_lock_names_its_run(tmp_path: Path) -> None:
    with run_lock(tmp_path, "abc"):
        assert (tmp_path / ".lock").read_text() == "abc"
    write_json(tmp_path / "record.json", {"name": "n", "status": "stopped", "signature": "s"})
    got = claim(tmp_path, "s", exact=True)
    assert got.target.resume
    got.release()
    assert json.loads((tmp_path / "record.json").read_text())["signature"] == "s"

"""Temporary files of killed processes are removed; those of living processes and other machines stay."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from smoa_lightning.ablation.execution.folders import Folders
from smoa_lightning.common.atomic_files import replacing, write_json
from smoa_lightning.common.leftovers import OLD_SECONDS, remove_leftovers, temporary_stem

DEAD = 2**22 + 1  # no process has this number


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def killed_inside(path: Path, folder: bool) -> None:
    """Let a process be killed while it replaces a file or a folder."""
    child = os.fork()
    if child == 0:
        with replacing(path) as temporary:
            temporary.mkdir() if folder else temporary.write_text("half of")
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("folder", [False, True])
def test_the_next_write_removes_what_a_killed_one_left(folder: bool, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        killed_inside(tmp_path / name, folder)
    assert len(names(tmp_path)) == 2
    write_json(tmp_path / "a.json", 1)
    assert [name.startswith(".b.json.") for name in names(tmp_path)] == [True, False]
    with replacing(tmp_path / "b.json") as temporary:
        temporary.mkdir() if folder else temporary.write_text("whole")
    assert names(tmp_path) == ["a.json", "b.json"]


def test_the_start_of_a_study_removes_leftovers_in_its_folders(tmp_path: Path) -> None:
    places = [".", "runs", "search", "cells", "runs/r=2,seed=0", "search/t"]
    for place in places:
        (tmp_path / place).mkdir(exist_ok=True)
        killed_inside(tmp_path / place / "new", folder=True)
    (tmp_path / "runs" / "r=2,seed=0" / ".step_5.tmp").mkdir()  # the run removes it, since it has the lock
    Folders("study", tmp_path, "best").remove_leftovers()
    assert [path.name for path in tmp_path.rglob(".*")] == [".step_5.tmp"]


def test_files_of_living_processes_and_of_other_machines_stay(tmp_path: Path) -> None:
    own = f"{temporary_stem('a')}.tmp"
    dead = own.replace(str(os.getpid()), str(DEAD))
    elsewhere, earlier = f".a.{DEAD}-ffffff000000.tmp", f".a.{DEAD}-ffffffff.tmp"
    for name in (own, dead, elsewhere, earlier, ".a.tmp", "a.7-ab.tmp"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted([own, elsewhere, earlier, ".a.tmp", "a.7-ab.tmp"])
    for name in names(tmp_path):
        os.utime(tmp_path / name, (0, (tmp_path / name).stat().st_mtime - OLD_SECONDS - 1))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted([own, ".a.tmp", "a.7-ab.tmp"])


def test_a_folder_that_was_moved_aside_gets_its_name_back(tmp_path: Path) -> None:
    for name in ("lost", "replaced"):
        (tmp_path / f".{name}.{DEAD}-{temporary_stem('x').rpartition('-')[2]}.old").mkdir()
    (tmp_path / "replaced").mkdir()
    (tmp_path / "replaced" / "new").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["lost", "replaced"]
    assert (tmp_path / "replaced" / "new").is_file()

"""A damaged journal of a study is refused with the line and the remedy, and the remedy works."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.ablation.execution.journal import CHECKSUM
from smoa_lightning.ablation.execution.storage import open_storage
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.common.atomic_files import write_json
from smoa_lightning.common.errors import UserError
from tests.ablation import fake_worker
from tests.ablation.small_study import GRID, SEARCH, study_file, work


def finished(folder: Path, text: str = GRID) -> tuple[Path, list[str]]:
    """Do a study in ``folder/out``; return its journal and the runs that were done."""
    done: list[str] = []

    def fit(run, *rest, **more) -> None:  # type: ignore[no-untyped-def]
        done.append(run.name)
        fake_worker.fit(run, *rest, **more)

    study = load_study([study_file(folder, text)])
    work(study, folder / "out", fit).until_done()
    write_json(folder / "out" / "study.json", {})
    return folder / "out" / "storage.log", done


def cut(line: bytes) -> bytes:
    return line[:30] + b"\n"


def zeros(line: bytes) -> bytes:
    return b"\0" * (len(line) - 1) + b"\n"


def foreign(line: bytes) -> bytes:
    return b"[]\n"


def edited(line: bytes) -> bytes:
    return line.replace(b'"worker_id":"', b'"worker_id":"x')


@pytest.mark.parametrize("damage", [cut, zeros, foreign, edited])
@pytest.mark.parametrize("place", [0, 20, -1], ids=["first", "middle", "last"])
def test_a_damaged_line_is_named_with_the_remedy(damage: Callable[[bytes], bytes], place: int, tmp_path: Path) -> None:
    journal, _ = finished(tmp_path)
    lines = journal.read_bytes().splitlines(keepends=True)
    number = range(len(lines))[place] + 1
    lines[place] = damage(lines[place])
    journal.write_bytes(b"".join(lines))
    with pytest.raises(UserError, match=rf"^line {number} of the journal .*storage.log is damaged: restore .* move it"):
        open_storage(None, journal.parent)


def test_each_changed_byte_of_the_journal_is_found(tmp_path: Path) -> None:
    """A changed letter in the name of a checksum only removes the checksum; the line is as it was."""
    journal, _ = finished(tmp_path)
    content = journal.read_bytes()
    for place in random.Random(0).sample(range(len(content) - 1), 50):
        journal.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        if b'"crc32"' not in content[place - 7 : place + 8]:  # else the line only loses its checksum
            with pytest.raises(UserError, match="of the journal"):
                open_storage(None, journal.parent)


def test_a_line_that_is_damaged_while_a_worker_reads_is_named(tmp_path: Path) -> None:
    journal, _ = finished(tmp_path)
    storage = open_storage(None, journal.parent)
    with journal.open("ab") as stream:
        stream.write(b"\0\0\0\n{}\n")
    with pytest.raises(UserError, match=r"of the journal .* is damaged"):
        storage.get_all_studies()


def test_a_journal_of_an_earlier_version_has_no_checksums(tmp_path: Path) -> None:
    journal, _ = finished(tmp_path)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert all(CHECKSUM in line for line in lines)
    plain = ["".join(json.dumps({k: v for k, v in line.items() if k != CHECKSUM})) + "\n" for line in lines]
    journal.write_text("".join(plain))
    _, again = finished(tmp_path)
    assert again == []


@pytest.mark.parametrize("text", [GRID, GRID + SEARCH], ids=["grid", "search"])
@pytest.mark.parametrize("left", ["missing", "empty"])
@pytest.mark.usefixtures("shown_notes")
def test_without_the_journal_all_finished_runs_are_found_again(
    left: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, first = finished(tmp_path, text)
    assert len(first) == 12 + 20 * (text != GRID)
    capsys.readouterr()
    journal.unlink()
    if left == "empty":
        journal.touch()
    shutil.copytree(tmp_path / "out", tmp_path / "before")
    _, again = finished(tmp_path, text)
    assert again == []
    said = capsys.readouterr().err
    assert said.count("is missing or empty: finished runs are found again in their folders") == 1
    for record in (tmp_path / "before").rglob("record.json"):
        assert record.read_text() == (tmp_path / "out" / record.relative_to(tmp_path / "before")).read_text()


@pytest.mark.parametrize(("number", "status"), [(errno.EROFS, 74), (errno.EACCES, 74), (errno.ENOSPC, 75)])
def test_a_disk_that_refuses_the_journal_has_its_own_exit_status(
    number: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = study_file(tmp_path)

    def refuse(path: str, **settings: object) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr("smoa_lightning.ablation.execution.storage.CheckedJournal", refuse)
    assert main(["ablate", "--config", str(file), "--root", str(tmp_path / "studies")]) == status
    shown = capsys.readouterr().err
    assert "storage.log" in shown
    assert shown.count("\n") == 1


def test_a_journal_on_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(
        UserError,
        match=r"^the file system of '.*out' has no file locks .*for a study with --root, for replies with --output$",
    ):
        work(load_study([study_file(tmp_path)]), tmp_path / "out")

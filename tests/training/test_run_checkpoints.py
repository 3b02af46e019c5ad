"""Checkpoint folders: complete or absent, found again after a kill, taken over from earlier versions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from smoa_lightning.common.errors import UserError
from smoa_lightning.training.checkpoint import read_checkpoint, verify, verify_all
from smoa_lightning.training.run_checkpoints import (
    BEST,
    FILES,
    LAST,
    checksums,
    committing,
    current,
    publish,
    recover,
    resume_point,
    run_of,
)

CONTENT = {"config": {"model": {}, "data": {}}, "state_dict": {}, "pytorch-lightning_version": "2.6.0"}


def write(run: Path, step: int, *entries: str) -> None:
    with committing(run, step) as folder:
        for entry in entries:
            if entry.endswith(".ckpt"):
                torch.save(CONTENT | {"global_step": step}, folder / entry)
            else:
                (folder / entry).mkdir(parents=True)
                (folder / entry / "weights").write_text(f"{entry} of {step}")


def step_of(path: Path) -> int:
    return int(read_checkpoint(path)["global_step"])


def test_entries_that_are_not_written_are_those_of_the_checkpoint_before(tmp_path: Path) -> None:
    write(tmp_path, 5, LAST, BEST, "adapter/best")
    write(tmp_path, 10, LAST)
    assert (step_of(tmp_path / "checkpoints" / LAST), step_of(tmp_path / "checkpoints" / BEST)) == (10, 5)
    assert (tmp_path / "adapter" / "best" / "weights").read_text() == "adapter/best of 5"
    assert not (tmp_path / "adapter" / "last").exists()
    assert resume_point(tmp_path) == tmp_path / "checkpoints" / "step_10" / LAST
    assert set(checksums(tmp_path / "checkpoints" / "step_10")) == {LAST, BEST, "adapter/best/weights"}


def test_each_kept_checkpoint_has_files_of_its_own(tmp_path: Path) -> None:
    """Damage to a file in one of them leaves the other; there are never more than two copies."""
    write(tmp_path, 5, LAST, BEST, "adapter/best")
    copies = set()
    for step in (10, 15, 20, 25):
        write(tmp_path, step, LAST)
        kept = sorted((tmp_path / "checkpoints").glob("step_*"))
        for name in (BEST, "adapter/best/weights"):
            files = [(folder / name).stat().st_ino for folder in kept]
            assert len(files) == len(set(files)) == 2
            copies |= set(files)
    assert len(copies) == 4
    file = tmp_path / "adapter" / "best" / "weights"
    file.write_text("changed")
    with pytest.raises(UserError, match=r"best/weights' is damaged.*; the checkpoint before it is intact: .*step_20/a"):
        verify_all(tmp_path / "checkpoints" / "step_25" / LAST)
    shutil.copy(tmp_path / "checkpoints" / "step_20" / "adapter" / "best" / "weights", file)
    verify_all(tmp_path / "checkpoints" / "step_25" / LAST)


def test_the_run_of_a_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 5, LAST, BEST)
    assert run_of(tmp_path / "checkpoints" / BEST) is None
    (tmp_path / "record.json").write_text("{}")
    for place in (BEST, f"current/{BEST}", f"step_5/{LAST}"):
        assert run_of(tmp_path / "checkpoints" / place) == tmp_path
    assert run_of(tmp_path / "elsewhere" / "a" / "b" / BEST) is None


def test_an_error_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    write(tmp_path, 5, LAST)

    def fail() -> None:
        with committing(tmp_path, 10) as folder:
            (folder / LAST).write_text("half of")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert step_of(tmp_path / "checkpoints" / LAST) == 5
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["current", LAST, "step_5"]


def test_two_checkpoints_of_a_step_and_the_number_that_is_kept(tmp_path: Path) -> None:
    for step in (5, 5, 5, 8):
        write(tmp_path, step, LAST)
    folders = sorted(path.name for path in (tmp_path / "checkpoints").glob("step_*"))
    assert len(folders) == 2  # the valid one and the one before
    assert folders[-1] == "step_8"
    publish(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").glob("step_*")] == ["step_8"]


def test_recovery_removes_what_was_not_committed(tmp_path: Path) -> None:
    write(tmp_path, 5, LAST, BEST, "adapter/best")
    root = tmp_path / "checkpoints"
    (root / ".step_10.tmp").mkdir()
    (root / ".step_10.tmp" / LAST).write_text("half of")
    (root / ".current.tmp").symlink_to("step_10")
    (tmp_path / "adapter" / "best").unlink()  # killed between two links
    (tmp_path / ".record.json.123.tmp").write_text("{")
    recover(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
    assert (tmp_path / "adapter" / "best" / "weights").read_text() == "adapter/best of 5"
    assert step_of(root / LAST) == 5


def test_a_folder_that_was_renamed_and_not_linked_is_the_checkpoint(tmp_path: Path) -> None:
    """Its files and the TensorBoard points before it are on disk, so it is a state that the run was in."""
    write(tmp_path, 5, LAST)
    for name in ("current", LAST):
        (tmp_path / "checkpoints" / name).unlink()
    recover(tmp_path)
    assert step_of(tmp_path / "checkpoints" / LAST) == 5
    assert resume_point(tmp_path) == tmp_path / "checkpoints" / "step_5" / LAST


def copied(run: Path, target: Path, links: str) -> Path:
    """Copy a run as tools do that leave out symbolic links, follow them, or write their targets as text."""
    if links == "followed":
        return Path(shutil.copytree(run, target))
    shutil.copytree(run, target, symlinks=True)
    for path in [path for path in target.rglob("*") if path.is_symlink()]:
        text = str(path.readlink())
        path.unlink()
        if links == "text":
            path.write_text(text)
    return target


@pytest.mark.parametrize("links", ["left out", "followed", "text"])
def test_a_copy_without_symbolic_links_keeps_its_checkpoints(links: str, tmp_path: Path) -> None:
    for step in (9, 10):  # as text, 9 is after 10
        write(tmp_path / "run", step, LAST, BEST, "adapter/best")
    copy = copied(tmp_path / "run", tmp_path / "copy", links)
    recover(copy)
    assert (step_of(copy / "checkpoints" / LAST), step_of(copy / "checkpoints" / BEST)) == (10, 10)
    assert (copy / "adapter" / "best" / "weights").read_text() == "adapter/best of 10"
    assert step_of(copy / "checkpoints" / "step_9" / LAST) == 9
    write(copy, 11, LAST)
    assert (step_of(copy / "checkpoints" / LAST), step_of(copy / "checkpoints" / BEST)) == (11, 10)


def test_a_copy_without_links_skips_a_damaged_checkpoint_and_removes_none(tmp_path: Path) -> None:
    for step in (5, 10):
        write(tmp_path, step, LAST, "adapter/best")
    root = tmp_path / "checkpoints"
    (root / "current").unlink()
    (root / "step_10" / "adapter" / "best" / "weights").write_text("changed")
    recover(tmp_path)
    assert step_of(root / LAST) == 5
    (root / "current").unlink()
    (root / "step_5" / LAST).unlink()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"no intact checkpoint: the file .*step_10/adapter/best/weights' is missing"):
        recover(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_checksums_was_being_removed(tmp_path: Path) -> None:
    write(tmp_path, 5, LAST)
    root = tmp_path / "checkpoints"
    for path in (root / "current", root / LAST, root / "step_5" / FILES):
        path.unlink()
    recover(tmp_path)
    assert resume_point(tmp_path) is None
    assert not list(root.glob("step_*"))


@pytest.mark.parametrize("lost", [FILES, "whole folder"])
def test_a_damaged_valid_checkpoint_stops_the_recovery_and_removes_nothing(lost: str, tmp_path: Path) -> None:
    for step in (5, 10):
        write(tmp_path, step, LAST)
    root = tmp_path / "checkpoints"
    (root / "step_10" / FILES).unlink() if lost == FILES else shutil.rmtree(root / "step_10")
    with pytest.raises(
        UserError, match=r"step_10' is damaged: it has no files\.json; restore the file, or let the link"
    ):
        recover(tmp_path)
    assert step_of(root / "step_5" / LAST) == 5
    (root / "current").unlink()
    (root / "current").symlink_to("step_5")  # the remedy
    recover(tmp_path)
    assert step_of(root / LAST) == 5


def test_a_run_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in (LAST, BEST):
        torch.save(CONTENT | {"global_step": 7}, tmp_path / "checkpoints" / name)
    (tmp_path / "adapter" / "best").mkdir(parents=True)
    (tmp_path / "adapter" / "best" / "weights").write_text("old")
    assert resume_point(tmp_path) == tmp_path / "checkpoints" / LAST
    recover(tmp_path)
    assert current(tmp_path) is not None
    assert (tmp_path / "checkpoints" / LAST).is_symlink()
    assert (tmp_path / "adapter" / "best" / "weights").read_text() == "old"
    assert step_of(tmp_path / "checkpoints" / BEST) == 7


def test_published_adapters_are_real_folders_and_can_be_committed_again(tmp_path: Path) -> None:
    write(tmp_path, 5, LAST, BEST, "adapter/best", "adapter/last")
    publish(tmp_path)
    publish(tmp_path)
    best = tmp_path / "adapter" / "best"
    assert best.is_dir()
    assert not best.is_symlink()
    shutil.copytree(best, tmp_path / "elsewhere")
    write(tmp_path, 6, LAST, "adapter/best")  # killed after publishing, before its record said so
    assert (best / "weights").read_text() == "adapter/best of 6"


@pytest.mark.parametrize("place", [100, 1000, -30])
@pytest.mark.parametrize("copied", [False, True])
def test_a_changed_byte_is_found(place: int, copied: bool, tmp_path: Path) -> None:
    write(tmp_path, 5, LAST)
    with committing(tmp_path, 10) as folder:
        torch.save(CONTENT | {"global_step": 10, "weights": torch.arange(1000.0)}, folder / LAST)
    file = (tmp_path / "checkpoints" / LAST).resolve()
    if copied:  # outside of its folder only the checksums inside of the file are left
        file = Path(shutil.copy(file, tmp_path / "copy.ckpt"))
        place = 1000 if place == 100 else place
    verify(file)
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    message = (
        "is damaged" if copied else "is damaged: its checksum is wrong; the checkpoint before it is intact: .*step_5"
    )
    with pytest.raises(UserError, match=message):
        read_checkpoint(file)


def test_damaged_checksums_are_not_trusted(tmp_path: Path) -> None:
    write(tmp_path, 5, LAST)
    for content in ("", "[]", "{", json.dumps({LAST: "0" * 64})):
        (tmp_path / "checkpoints" / "step_5" / FILES).write_text(content)
        with pytest.raises(UserError, match="is damaged"):
            verify(tmp_path / "checkpoints" / LAST)

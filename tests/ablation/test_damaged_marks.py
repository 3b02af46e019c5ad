"""Runs of studies that are damaged or cannot be read are done again, and their files stay.

The mark of a run's folder is its signature.
"""

from __future__ import annotations

import datetime
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.ablation.execution import supervisor as supervising
from smoa_lightning.ablation.execution.folders import MARK
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.common.atomic_files import write_json
from tests.ablation import fake_worker
from tests.ablation.small_study import study_file, work


def test_each_changed_byte_of_a_mark_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def fit(run, *rest, **more) -> None:  # type: ignore[no-untyped-def]
        done.append(run.name)
        fake_worker.fit(run, *rest, **more)

    study, out = load_study([study_file(tmp_path)]), tmp_path / "out"
    work(study, out, fit).until_done()
    write_json(out / "study.json", {})
    monkeypatch.setattr(supervising, "SETTLED", datetime.timedelta(0))
    source, marks = random.Random(0), sorted(out.glob(f"runs/*/{MARK}"))
    assert len(done) == len(marks) == 12
    for damaged in range(1, 11):
        mark = source.choice(marks)
        before, place = mark.read_bytes(), source.randrange(16)
        mark.write_bytes(before[:place] + bytes([before[place] ^ (0x80 >> damaged % 8)]) + before[place + 1 :])
        record = (mark.parent / "record.json").read_bytes()
        worker = work(study, out, fit)
        lost = supervising.Supervisor(study, out, worker.status.final.storage, 1, []).reopen_lost()
        assert lost == [mark.parent.name]
        worker.until_done()
        assert (len(done), done[-1]) == (12 + damaged, mark.parent.name)
        assert mark.read_bytes() == before
        kept = max((out / "superseded").iterdir(), key=lambda folder: folder.stat().st_ctime_ns)
        assert (kept / "record.json").read_bytes() == record


@pytest.mark.parametrize("fault", ["damaged record", "unreadable record", "unreadable mark", "unreadable folder"])
def test_a_run_of_another_study_that_cannot_be_used_is_left_alone(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def fit(run, *rest, **more) -> None:  # type: ignore[no-untyped-def]
        done.append(run.name)
        fake_worker.fit(run, *rest, **more)

    study = load_study([study_file(tmp_path)], [("seeds", "1"), ("axes.r", "[2, 4]")])
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "study.json", {})
    work(study, tmp_path / "old", fit).until_done()
    sibling = tmp_path / "old" / "runs" / done[0]
    if fault == "damaged record":
        (sibling / "record.json").write_text("{")
    else:
        refused = {"record": sibling / "record.json", "mark": sibling / MARK, "folder": sibling.parent}[fault[11:]]

        def refusing(original: Any) -> Any:
            def access(path: Path, *rest: Any, **more: Any) -> Any:
                if path == refused:
                    raise PermissionError(13, "Permission denied", str(path))
                return original(path, *rest, **more)

            return access

        for name in ("read_text", "iterdir"):
            monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
    files = sorted(tmp_path.glob("old/**/*"))
    worker = work(study, tmp_path / "new", fit)
    worker.until_done()
    again = 2 if fault == "unreadable folder" else 1
    assert (len(done), worker.status.failures()) == (2 + again, [])
    assert sorted(tmp_path.glob("old/**/*")) == files


def test_a_damaged_record_is_moved_away_by_the_worker_that_has_claimed_the_run(tmp_path: Path) -> None:
    """Workers that only look, to gather a cell, change nothing: another one may be writing the run again."""
    study = load_study([study_file(tmp_path)])
    worker = work(study, tmp_path / "out")
    worker.step()
    run = next(study.final_runs())
    folder = worker.folders.of(run)
    (folder / "record.json").write_text("{")
    assert worker.folders.finished(run) is None
    assert (folder / MARK).read_text() == run.signature
    worker.folders.take(run)
    assert [path.name for path in folder.iterdir()] == [MARK]
    assert (tmp_path / "out" / "superseded" / f"{folder.name}-1" / "record.json").read_text() == "{"


@pytest.mark.parametrize("step", ["mkdir", "write_text", "replace"])
def test_a_worker_that_is_killed_when_it_takes_a_run_leaves_no_folder_of_another_run(tmp_path: Path, step: str) -> None:
    """The folder and its mark appear in one step: before or after it, the next worker moves nothing away."""
    study = load_study([study_file(tmp_path)])
    worker = work(study, tmp_path / "out")
    run = next(study.final_runs())
    child = os.fork()
    if child == 0:
        original = getattr(Path, step)

        def killed(path: Path, *rest: Any, **more: Any) -> Any:
            original(path, *rest, **more)
            if "runs" in path.parts:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(Path, step, killed)
        worker.folders.take(run)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    folder = worker.folders.take(run)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert (folder / MARK).read_text() == run.signature
    assert not (tmp_path / "out" / "superseded").exists()

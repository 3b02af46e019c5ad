"""The mark of a run's folder is its signature: with a damaged one, the run is done again, and its files stay."""

from __future__ import annotations

import datetime
import random
from pathlib import Path

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

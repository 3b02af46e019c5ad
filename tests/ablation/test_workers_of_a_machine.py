"""Workers have their GPU before they import anything, and stop when their supervisor is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from smoa_lightning.ablation.execution import devices
from smoa_lightning.ablation.execution import supervisor as supervising
from smoa_lightning.ablation.execution.ledger import ORPHANED
from smoa_lightning.ablation.execution.storage import open_storage
from smoa_lightning.ablation.execution.supervisor import Supervisor
from smoa_lightning.ablation.study.expand import load_study
from tests.ablation.small_study import study_file, work

# A library that uses CUDA at its import sees the environment of this moment.
FAKE_LIBRARY = "import os; seen = os.environ.get('CUDA_VISIBLE_DEVICES')"
IMPORTING = "import fake_cuda, sys, time; print('seen', fake_cuda.seen, flush=True); time.sleep(60)"


@pytest.mark.parametrize(
    ("gpus", "visible", "expected"),
    [
        (2, None, ["0", "1", "0"]),
        (3, None, ["0", "1", "2"]),
        (1, None, ["None"] * 3),
        (0, None, ["None"] * 3),
        (4, "2,3", ["2", "3", "2"]),
        (4, "GPU-a,GPU-b,GPU-c", ["GPU-a", "GPU-b", "GPU-c"]),
        (4, "1", ["1"] * 3),
        (4, "", [""] * 3),
    ],
)
def test_a_worker_has_its_gpu_when_it_imports_libraries(
    gpus: int, visible: str | None, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake_cuda.py").write_text(FAKE_LIBRARY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(devices, "count_gpus", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    supervisor = Supervisor(load_study([study_file(tmp_path)]), tmp_path, open_storage(None, tmp_path), 3, [])
    monkeypatch.setattr(supervisor, "command", lambda number: [sys.executable, "-c", IMPORTING])
    supervisor._replace()
    try:
        limit, seen = time.monotonic() + 30, [""] * 3
        while not all(seen) and time.monotonic() < limit:
            time.sleep(0.05)
            seen = [supervisor.log(number).read_text().strip() for number in range(3)]
        assert seen == [f"seen {value}".strip() for value in expected]
    finally:
        for process in supervisor.processes.values():
            process.kill()
            process.wait()


SUPERVISOR = """
import sys
from pathlib import Path
from tests.ablation.test_execution_deaths import FakeSupervisor
from smoa_lightning.ablation.execution.storage import open_storage
from smoa_lightning.ablation.study.expand import load_study
file, folder = sys.argv[1], Path(sys.argv[2])
FakeSupervisor(load_study([Path(file)]), folder, open_storage(None, folder), 2, [file, ""]).run()
"""


def processes_with(word: str) -> list[int]:
    """Return the processes that have a word in their command."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_text(errors="replace")
        except OSError:
            continue
        if word in command and "fake_worker" in command:
            found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").is_file(), reason="the test reads the processes from /proc")
def test_workers_of_a_killed_supervisor_stop_and_the_next_start_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = study_file(tmp_path), tmp_path / "out"
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("FAKE_SECONDS", "40")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(file), str(out)], stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while not ((tmp_path / "log").is_file() and (tmp_path / "log").read_text().count("begin") == 2):
        assert time.monotonic() < limit, "the workers did not begin"
        time.sleep(0.1)
    assert len(processes_with(str(out))) == 2
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    limit = time.monotonic() + 20  # a run takes at least as long
    while processes_with(str(out)):
        assert time.monotonic() < limit, "the workers go on without their supervisor"
        time.sleep(0.1)
    study = load_study([file])
    attempts = work(study, out).status.final.attempts()
    assert [attempt.user_attrs.get("reason") for attempt in attempts] == [ORPHANED] * 2
    monkeypatch.setenv("FAKE_SECONDS", "0")
    monkeypatch.setattr(supervising, "REFRESH_SECONDS", 0.01)
    following = Supervisor(study, out, open_storage(None, out), 1, [])
    assert sorted(following.orphaned()) == sorted(attempt.user_attrs["run"] for attempt in attempts)
    worker = work(study, out)
    worker.until_done(poll=0.01)
    assert following.orphaned() == []
    assert len([t for t in worker.status.final.attempts() if t.state == TrialState.COMPLETE]) == 12

"""A disk that fails at any moment ends a command with one sentence; the same command afterwards has the same result."""

from __future__ import annotations

import errno
import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.common.disk_errors import (
    FULL_STATUS,
    REASONS,
    STATUS,
    disk_is_full,
    disk_sentence,
    threads_without_traceback,
)
from tests.conftest import EXPERIMENTS
from tests.training.kill_server import server

SHORT = [
    *("--config", str(EXPERIMENTS / "piqa.yaml"), "--model.backbone.source", "embedded"),
    *("--data.source", "embedded", "--data.limit_train_rows", "64", "--data.limit_report_rows", "24"),
    *("--data.selection_rows", "16", "--data.batch_size", "8", "--trainer.max_epochs", "2", "--model.adapter.r", "4"),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--checkpoint.every_n_steps", "5"),
]
STUDY = f"""
name: small
base: [{EXPERIMENTS}/piqa.yaml, {EXPERIMENTS}/backbones/embedded.yaml]
axes: {{r: [2, 4]}}
baseline: {{r: 2}}
objective: acc
seeds: 1
overrides: {{data.source: embedded, data.limit_train_rows: 32, data.limit_report_rows: 16, data.selection_rows: 8,
  trainer.max_epochs: 1, trainer.accelerator: cpu}}
"""


def serve(folder: Path, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with server(folder, "tests.disk_server") as do:
        return [do(job) for job in jobs]


def result(root: Path) -> tuple[str, dict[str, float]]:
    """Return status and metrics of the first run under a folder, without its costs."""
    record = json.loads(sorted(root.glob("*/version_*/record.json"))[0].read_text())
    return record["status"], {name: value for name, value in record["metrics"].items() if not name.startswith("cost/")}


def check(done: dict[str, Any]) -> None:
    """One sentence, no traceback, and the command succeeds afterwards."""
    assert "Traceback" not in done["log"], done["log"][-3000:]
    assert done["final"] == 0, done["log"][-3000:]
    if done["status"] == 2:  # the storage of a study names its journal
        assert " cannot be read: [Errno " in done["shown"].strip().splitlines()[-1], done["shown"][-3000:]
    elif done["status"]:
        assert done["status"] == (FULL_STATUS if done["error"] == "ENOSPC" else STATUS), done["shown"][-3000:]
        assert done["shown"].strip().splitlines()[-1].startswith("smoa_lightning: cannot use "), done["shown"][-3000:]


def fits(folder: Path, points: int) -> None:
    def job(name: str, operation: int, error: str) -> dict[str, Any]:
        (folder / name).mkdir()
        arguments = ["fit", *SHORT, "--run.root", str(folder / name)]
        return {"arguments": arguments, "root": str(folder / name), "operation": operation, "error": error}

    (whole,) = serve(folder, [job("whole", 0, "ENOSPC")])
    assert whole["status"] == 0, whole["log"][-3000:]
    most = len(json.loads((folder / "operations.json").read_text()))
    draw = random.Random(points)
    jobs = [
        job(f"fit{number}", number, draw.choice(["ENOSPC", "EROFS", "EACCES", "ENOENT"]))
        for number in sorted(draw.sample(range(1, most - 20), points))  # the last ones vary with TensorBoard's thread
    ]
    for done in serve(folder, jobs):
        check(done)
        assert done["status"] != 0
        assert result(Path(done["root"])) == result(folder / "whole")


@pytest.mark.slow
def test_a_fit_on_a_failing_disk(tmp_path: Path) -> None:
    fits(tmp_path, 2)


@pytest.mark.slow
def test_a_fit_on_a_failing_disk_at_many_points(tmp_path: Path) -> None:
    fits(tmp_path, 16)


@pytest.mark.slow
def test_a_study_its_report_and_generation_on_a_failing_disk(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)
    draw = random.Random(0)

    def study(name: str, operation: int, error: str, length: int | None = None) -> dict[str, Any]:
        (tmp_path / name).mkdir()
        arguments = ["ablate", "--config", str(tmp_path / "small.yaml"), "--root", str(tmp_path / name)]
        found = {"arguments": arguments, "root": str(tmp_path / name), "operation": operation}
        return {**found, "error": error, "length": length}

    jobs = [study(f"a{n}", n, error) for n, error in [(2, "EACCES"), (8, "EROFS"), (15, "EACCES")]]
    jobs += [study(f"b{n}", n, "ENOSPC", 3) for n in (12, 30)]
    for done in serve(tmp_path, jobs):
        check(done)
    folder = tmp_path / "a2" / "small"
    points = draw.sample(range(1, 12), 6)
    jobs = [
        {"arguments": ["report", str(folder)], "root": str(folder), "operation": n, "error": draw.choice(list(ERRORS))}
        for n in points
    ]
    for done in serve(tmp_path, jobs):
        check(done)
    run = next(folder.glob("runs/*"))
    arguments = ["generate", str(run), "--prompt", "How", "--max_new_tokens", "2"]
    job = {"arguments": arguments, "root": str(folder), "operation": 1, "error": "EROFS"}
    (done,) = serve(tmp_path, [job])
    check(done)
    assert done["status"] == 0  # it writes nothing


ERRORS = {"ENOSPC": FULL_STATUS, "EROFS": STATUS, "EACCES": STATUS}


@pytest.mark.parametrize("number", REASONS)
def test_each_error_of_the_disk_is_a_sentence(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = OSError(number, os.strerror(number), "some/file")

    def fault(args: list[str]) -> int:
        raise error

    monkeypatch.setattr("smoa_lightning.__main__.run", fault)
    assert main(["fit"]) == (FULL_STATUS if disk_is_full(error) else STATUS)
    shown = capsys.readouterr().err
    assert shown.startswith("smoa_lightning: cannot use 'some/file': ")
    assert shown.count("\n") == 1


def test_errors_of_other_languages_and_wrapped_errors() -> None:
    class SafetensorError(Exception):
        pass

    safetensors = SafetensorError('I/O error: Os { code: 28, kind: StorageFull, message: "No space left on device" }')
    torch = RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0")
    arrow = OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device")
    for error in (safetensors, torch, arrow):
        assert disk_is_full(error)
    above = ValueError("x")
    above.__cause__ = OSError(errno.EROFS, "Read-only file system")
    assert str(disk_sentence(above)).endswith("run the same command again to continue")
    assert str(disk_sentence(above, continues=False)).endswith("run the same command again")
    assert "read-only" in str(disk_sentence(above))
    assert not disk_is_full(above)
    for other in (ValueError("x"), ConnectionError("refused"), RuntimeError("shapes differ")):
        assert disk_sentence(other) is None


def test_a_thread_prints_a_traceback_for_other_errors_only(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[Any] = []

    def fault(error: BaseException) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", shown.append)
        with threads_without_traceback():
            for error in (OSError(errno.ENOSPC, "full"), ValueError("a bug")):
                thread = threading.Thread(target=fault, args=(error,))
                thread.start()
                thread.join()
    assert [arguments.exc_type for arguments in shown] == [ValueError]

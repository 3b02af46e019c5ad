"""A run that ends early: after a crash, Ctrl-C or a loss of NaN, and how it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from smoa_lightning.__main__ import main
from smoa_lightning.training.callbacks.forgetting import Forgetting
from smoa_lightning.training.module import FineTuneModule

from ..runs import Killed, die_at_step, only_run

OTHER = ["--trainer.accumulate_grad_batches", "2", "--model.adapter.dropout", "0.1", "--model.decay", "cosine"]


@pytest.mark.parametrize("extra", [[], OTHER])
def test_interrupted_run_equals_an_uninterrupted_one(
    extra: list[str], tiny_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five steps, a crash and five more steps after a resume are ten steps: same weights, same data order."""
    arguments = ["fit", *tiny_arguments, *extra, "--trainer.max_epochs", "3", "--trainer.max_steps", "10"]
    arguments += ["--checkpoint.every_n_steps", "5"]
    assert main([*arguments, "--run.root", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        die_at_step(patch, 6)
        with pytest.raises(Killed):
            main([*arguments, "--run.root", str(tmp_path / "cut")])
    cut = only_run(tmp_path / "cut")
    assert json.loads((cut / "record.json").read_text())["status"] == "failed"
    assert torch.load(cut / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 5
    assert main([*arguments, "--run.root", str(tmp_path / "cut")]) == 0
    assert only_run(tmp_path / "cut") == cut
    for file in ("adapter/last/adapter_model.safetensors", "adapter/best/adapter_model.safetensors"):
        whole, resumed = load_file(only_run(tmp_path / "whole") / file), load_file(cut / file)
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert json.loads((cut / "record.json").read_text())["status"] == "finished"
    steps = [e.step for e in EventAccumulator(str(cut)).Reload().Scalars("train/loss")]
    assert steps == sorted(set(steps))


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(tiny_arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "smoa_lightning", "fit", *tiny_arguments, "--checkpoint.every_n_steps", "2"]
    long = [*command, "--trainer.max_epochs", "1000"]
    process = subprocess.Popen(
        long,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background lets its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 300  # far more than needed: busy machines start slowly
    while not list((tmp_path / "runs").glob("*/*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in error
    run = only_run(tmp_path / "runs")
    record = json.loads((run / "record.json").read_text())
    assert (record["status"], record["reason"]) == ("stopped", "stopped by Ctrl-C")
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] > 0


def test_sigterm_at_the_end_of_the_base_scores_stops_before_training(
    tiny_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning looks for the signal after each batch but the last, and forgets it when it begins to train."""
    with monkeypatch.context() as patch:
        patch.setattr(Forgetting, "on_test_epoch_end", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert main(["fit", *tiny_arguments, "--run.score_base", "true"]) == 130
    assert "stopped; run the same command again to continue" in capsys.readouterr().err
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert (record["status"], record["reason"]) == ("stopped", "stopped by the signal SIGTERM")


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_stops_and_keeps_the_last_good_checkpoint(
    where: str,
    tiny_arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original = FineTuneModule.training_step

    def step(self: FineTuneModule, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = original(self, batch, batch_idx)
        if self.trainer.global_step == 7 and where == "loss":
            self._step_loss = self._step_loss * float("nan")  # type: ignore[operator]
        elif self.trainer.global_step == 7:
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss

    monkeypatch.setattr(FineTuneModule, "training_step", step)
    assert main(["fit", *tiny_arguments, "--checkpoint.every_n_steps", "2"]) == 2
    error = capsys.readouterr().err
    assert ("loss is nan" if where == "loss" else "norm nan") in error
    assert "at step 8" in error
    assert sum(line.startswith("smoa_lightning: ") for line in error.splitlines()) == 1
    run = only_run(tmp_path / "runs")
    assert json.loads((run / "record.json").read_text())["status"] == "failed"
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 6
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values() if value.is_floating_point())

"""An evaluation of a checkpoint scores the general text of its run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.__main__ import main

from ..runs import only_run


def evaluate(checkpoint: Path, output: Path, *flags: str) -> dict[str, Any]:
    given = ["--ckpt_path", str(checkpoint), "--run.folder", str(output), *flags]
    assert main(["test", *given, "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]) == 0
    metrics: dict[str, Any] = json.loads((output / "evaluation.json").read_text())["metrics"]
    return metrics


def test_the_text_is_that_of_the_run_from_any_working_folder(
    short_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.jsonl").write_text("".join(json.dumps({"text": f"{n} dogs bark."}) + "\n" for n in range(4)))
    flags = ["--forgetting.text", "text.jsonl", "--forgetting.max_documents", "3", "--trainer.max_steps", "2"]
    flags += ["--run.root", str(tmp_path / "runs"), "--run.score_base", "false"]
    assert main(["fit", *short_arguments, *flags]) == 0
    run = only_run(tmp_path / "runs")
    trained = json.loads((run / "record.json").read_text())["metrics"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    best = run / "checkpoints" / "best.ckpt"
    again = evaluate(best, tmp_path / "again")
    assert again["report/general_nll"] == pytest.approx(trained["report/general_nll"], abs=1e-6)
    Path("../text.jsonl").unlink()
    assert main(["validate", "--ckpt_path", str(best), "--trainer.accelerator", "cpu"]) == 0  # it scores no text
    assert main(["test", "--ckpt_path", str(best), "--trainer.accelerator", "cpu"]) == 2
    assert "does not exist; name a .txt or .jsonl file, 'embedded', or null" in capsys.readouterr().err
    Path("../text.jsonl").write_text("".join(json.dumps({"text": f"{n} dogs bark."}) + "\n" for n in range(4)))
    fewer = evaluate(best, tmp_path / "fewer", "--forgetting.max_documents", "1")
    assert fewer["report/general_nll"] != again["report/general_nll"]


def test_a_run_without_general_text_is_evaluated_without_it(finished: Path, tmp_path: Path) -> None:
    best = finished / "checkpoints" / "best.ckpt"
    assert not [name for name in evaluate(best, tmp_path / "none") if "general" in name]
    flags = ["--forgetting.text", "embedded", "--forgetting.max_documents", "2"]
    assert evaluate(best, tmp_path / "flag", *flags)["report/general_nll"] > 0

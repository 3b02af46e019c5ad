"""What a run with a new head refuses in one sentence, before weights are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForMaskedLM

from smoa_lightning.__main__ import main

from ..conftest import EXPERIMENTS
from .test_run import arguments

SETTINGS = {
    "--data.packing true": "data.packing is True, but task 'cola' has no prompt and no reply, but a label",
    "--data.num_fewshot 2": "data.num_fewshot is 2, but task 'cola' has no prompt and no reply, but a label",
    "--data.max_new_tokens 4": "data.max_new_tokens is 4, but task 'cola' has no prompt and no reply",
    "--data.num_beams 2": "data.num_beams is 2, but task 'cola' has no prompt and no reply",
    "--data.loss_on all": "data.loss_on is all, but task 'cola' has no prompt and no reply",
    "--data.selection trained_rows --data.train_per_class 4": "data.train_per_class is 4, but data.selection is",
    "--data.task mixture --data.mixture [cola,sst2]": "need different heads of the model",
    "--data.task mixture --data.mixture [rte,qnli] --data.report_tasks [rte]": "is trained on one task",
    "--model.backbone.quantization nf4": "model.backbone.quantization is 'nf4', but a new head",
    "--model.no_weight_decay [bias] --model.optimizer torch.optim.Rprop": "Rprop has no weight decay",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_language_models_are_refused(
    setting: str,
    encoder: Callable[[str], Path],
    glue_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("smoa_lightning.training.module.load_model", lambda *_: pytest.fail("weights were read"))
    rows = glue_folder if "mixture" in setting else glue_folder / "cola"
    flags = arguments(encoder("bert"), rows, tmp_path / "runs")
    assert main(["fit", *flags, *setting.split()]) == 2
    assert SETTINGS[setting] in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("adapter", ["lora", "surm_adapter", "full"])
def test_a_word_of_no_parameter_has_no_weight_decay_to_leave_out(
    adapter: str,
    encoder: Callable[[str], Path],
    glue_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("smoa_lightning.training.module.load_model", lambda *_: pytest.fail("weights were read"))
    flags = arguments(encoder("bert"), glue_folder / "cola", tmp_path / "runs")
    flags += ["--config", str(EXPERIMENTS / f"adapters/{adapter}.yaml")]
    assert main(["fit", *flags, "--model.no_weight_decay", "[bias, layernorm]"]) == 2
    message = "model.no_weight_decay: no parameter has 'layernorm' in its name; the nearest is LayerNorm"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("task", ["sst2", "stsb"])
def test_a_checkpoint_is_tested_on_its_own_classes(
    task: str, encoder: Callable[[str], Path], glue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two tasks with two classes each: the outputs of one head would get the names of the other."""
    flags = [*arguments(encoder("bert"), glue_folder / "cola", tmp_path / "runs"), "--trainer.max_steps", "1"]
    assert main(["fit", *flags, "--run.score_base", "false", "--model.warmup", "0"]) == 0
    best = next((tmp_path / "runs").rglob("best.ckpt"))
    other = arguments(encoder("bert"), glue_folder / task, tmp_path / "t", task)
    assert main(["test", *other, "--ckpt_path", str(best), "--run.folder", str(tmp_path / "t")]) == 2
    refused = capsys.readouterr().err
    outputs = {"sst2": "sequence classification (negative, positive)", "stsb": "regression"}[task]
    assert "has the head sequence classification (unacceptable, acceptable), but the rows need " + outputs in refused
    assert not (tmp_path / "t").exists()


def test_a_missing_pooler_is_refused_unless_it_is_trained(
    encoder: Callable[[str], Path],
    word_tokenizer: Any,
    glue_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A BERT that was trained to fill in masks only has no pooler; the settings of the message train one."""
    folder = tmp_path / "masked"
    AutoModelForMaskedLM.from_pretrained(encoder("bert")).save_pretrained(folder)
    word_tokenizer.save_pretrained(folder)
    flags = [*arguments(folder, glue_folder / "cola", tmp_path / "runs"), "--trainer.max_steps", "1"]
    assert main(["fit", *flags, "--trainer.limit_test_batches", "1"]) == 2
    message = capsys.readouterr().err
    allowed, saved = "['bert.pooler.*']", "[pooler]"
    assert (
        f"model.backbone.allow_missing: {allowed} and train it with model.adapter.modules_to_save: {saved}" in message
    )
    more = ["--model.backbone.allow_missing", allowed, "--model.adapter.modules_to_save", saved]
    assert main(["fit", *flags, *more, "--run.name", "allowed"]) == 0
    record = json.loads((tmp_path / "runs" / "allowed" / "version_0" / "record.json").read_text())
    capsys.readouterr()
    assert main(["params", *flags, "--no_memory", "--json"]) == 0
    adapter = json.loads(capsys.readouterr().out)["trainable_parameters"]
    assert record["metrics"]["parameters/trainable"] == adapter + 24 * 24 + 24


def test_params_counts_the_head_and_estimates_memory(
    encoder: Callable[[str], Path], glue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = arguments(encoder("bert"), glue_folder / "cola", tmp_path / "runs")
    assert main(["params", *flags]) == 0
    printed = capsys.readouterr().out
    assert "parameters of the new head, trained with the strategy: 50" in printed
    assert "memory of a training step, " in printed

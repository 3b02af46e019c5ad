"""Whole runs with a new head: commands, records, both selection protocols."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from smoa_lightning.__main__ import main
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.records.selection import selection_note

from ..runs import only_run

LR = "--model.optimizer.init_args.lr"
GLUE = Path(__file__).parents[2] / "experiments" / "glue"
OVERLAYS = ("base", "surm_published")


def arguments(encoder: Path, rows: Path, root: Path, task: str = "cola") -> list[str]:
    return [
        *("--config", str(GLUE / f"{task}.yaml"), "--run.root", str(root)),
        *("--model.backbone.source", "local", "--model.backbone.path", str(encoder)),
        *("--data.source", "local", "--data.path", str(rows), "--data.batch_size", "16"),
        *(
            "--trainer.log_every_n_steps",
            "1",
            "--trainer.max_epochs",
            "2",
            "--trainer.accelerator",
            "cpu",
            "--trainer.enable_progress_bar",
            "false",
        ),
    ]


def record_of(root: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((only_run(root) / "record.json").read_text())
    return record


def test_fit_test_params_and_page_of_a_classifier(
    encoder: Callable[[str], Path], glue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Held-out rows select; the record counts the head apart; a test of the best adapter gives the report's scores."""
    flags = arguments(encoder("bert"), glue_folder / "cola", tmp_path / "runs")
    assert main(["fit", *flags, "--data.selection_rows", "12"]) == 0
    run, record = only_run(tmp_path / "runs"), record_of(tmp_path / "runs")
    assert record["data"]["selection"] == "held_out"
    assert record["data"]["parts"]["train"]["rows"] == 64 - 12
    assert record["metrics"]["parameters/head"] == 2 * 24 + 2
    assert record["backbone"]["head"] == {"kind": "sequence_classification", "names": ["unacceptable", "acceptable"]}
    metrics = record["metrics"]
    assert {f"{part}/{name}" for part in ("base", "report", "selection") for name in ("mcc", "f1", "acc", "nll")} <= {
        *metrics
    }
    items = [json.loads(line) for line in (run / "items.jsonl").read_text().splitlines()]
    right = sum(item["prediction_acc"] == item["label"] for item in items)
    assert right / len(items) == pytest.approx(metrics["report/acc"], abs=1e-6)
    assert not any(name.endswith("general_perplexity") for name in metrics)

    assert (
        main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--run.folder", str(tmp_path / "t")]) == 0
    )
    again = json.loads((tmp_path / "t" / "evaluation.json").read_text())["metrics"]
    assert again["report/mcc"] == pytest.approx(metrics["report/mcc"], abs=1e-6)

    capsys.readouterr()
    assert main(["params", *flags, "--no_memory", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trainable_parameters"] == metrics["parameters/trainable"]
    assert main(["report", str(run)]) == 0

    assert main(["generate", str(run), "--prompt", "A cat."]) == 2
    assert "has a head for sequence classification, which writes no text: use predict" in capsys.readouterr().err

    assert main(["export", str(run), "--output", str(tmp_path / "merged")]) == 0
    facts = json.loads((tmp_path / "merged" / "export.json").read_text())
    assert facts["fidelity"]["largest_difference"] < 1e-4
    assert facts["fidelity"]["after"]["mcc"] == pytest.approx(metrics["report/mcc"], abs=1e-6)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert plain.config.id2label == {0: "unacceptable", 1: "acceptable"}
    assert main(["export", str(run), "--output", str(tmp_path / "lora"), "--format", "lora"]) == 2
    assert "a LoRA does not hold the new head" in capsys.readouterr().err


def test_best_epoch_on_report_trains_on_all_rows_and_is_labelled(
    encoder: Callable[[str], Path], glue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The overlay has the settings of SURM's script, and each of them reaches the optimizer and the trainer."""
    flags = arguments(encoder("bert"), glue_folder / "cola", tmp_path / "runs")
    del flags[flags.index("--data.batch_size") : flags.index("--data.batch_size") + 2]
    assert main(["fit", *flags, "--config", str(GLUE / "surm_published.yaml"), "--trainer.max_epochs", "3"]) == 0
    assert "Selection best_epoch_on_report" in capsys.readouterr().out
    record = record_of(tmp_path / "runs")
    assert record["data"]["selection"] == "best_epoch_on_report"
    parts, metrics = record["data"]["parts"], record["metrics"]
    assert (parts["train"]["rows"], parts["selection"]["rows"], parts["report"]["rows"]) == (64, 24, 24)
    assert metrics["selection/mcc"] == pytest.approx(metrics["report/mcc"], abs=1e-6)
    assert record["best"]["selection_score"] == pytest.approx(metrics["report/mcc"], abs=1e-6)
    config = record["config"]
    assert config["trainer"]["gradient_clip_val"] is None
    assert (config["data"]["batch_size"], config["data"]["max_length"], config["model"]["warmup"]) == (64, 128, 0.06)
    saved = only_run(tmp_path / "runs") / "checkpoints" / "last.ckpt"
    (optimizer,) = torch.load(saved, weights_only=True)["optimizer_states"]
    groups = [(len(g["params"]), g["initial_lr"], g["weight_decay"], g["lr"]) for g in optimizer["param_groups"]]
    # two factors of the slots of two layers, and the classifier's weight; the bias of each slot and of the classifier
    assert groups == [(2 * 4 + 1, 2e-3, 0.25, 0.0), (4 + 1, 2e-3, 0.0, 0.0)]
    assert metrics["parameters/head"] == 2 * 24 + 2  # without the pooler
    assert main(["report", str(only_run(tmp_path / "runs"))]) == 0
    (page,) = only_run(tmp_path / "runs").rglob("*.html")
    assert "Selection best_epoch_on_report" in page.read_text()


@pytest.mark.parametrize("trained", ["adapter", "head"])
def test_a_new_head_is_trained_in_float32_on_a_backbone_in_bfloat16(
    trained: str, encoder: Callable[[str], Path], glue_folder: Path, tmp_path: Path
) -> None:
    """With a rate whose steps bfloat16 would round away, every weight of the head moves."""
    heads = []
    for rate in ("1.0e-12", "2.0e-5"):
        root = tmp_path / rate
        flags = arguments(encoder("bert"), glue_folder / "cola", root)
        flags += ["--model.backbone.dtype", "bfloat16", "--model.head_lr" if trained == "adapter" else LR, rate]
        flags += ["--model.warmup", "0", "--model.decay", "constant", "--run.score_base", "false"]
        frozen = ["--config", str(GLUE.parent / "adapters" / "frozen.yaml"), "--model.head_lr", "null"]
        assert main(["fit", *flags, *(frozen if trained == "head" else [])]) == 0
        saved = torch.load(only_run(root) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        heads += [saved[name] for name in saved if name.endswith("weight") and "classifier" in name]
    assert len(heads) == 2
    assert {head.dtype for head in heads} == {torch.float32}
    assert (heads[0] != heads[1]).all()


def test_one_selection_excludes_the_other() -> None:
    with pytest.raises(UserError, match=r"data\.selection_rows is 20, but data\.selection is best_epoch_on_report"):
        TaskDataModule("cola", selection="best_epoch_on_report", selection_rows=20)


def test_note_counts_the_runs() -> None:
    published, own = {"data": {"selection": "best_epoch_on_report"}}, {"data": {}}
    assert selection_note([own, own]) is None
    assert '"as published" in 1 of 2 runs' in (selection_note([own, published]) or "")


@pytest.mark.parametrize("task", sorted(file.stem for file in GLUE.glob("*.yaml") if file.stem not in OVERLAYS))
def test_every_task_runs_offline_with_the_embedded_encoder(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a hub, ``auto`` takes the encoder and the rows of the package, with a banner."""
    short = [
        "--trainer.max_steps",
        "1",
        "--trainer.log_every_n_steps",
        "1",
        "--data.limit_train_rows",
        "32",
        "--data.limit_report_rows",
        "12",
    ]
    quiet = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--data.selection_rows", "8"]
    assert main(["fit", "--config", str(GLUE / f"{task}.yaml"), "--run.root", str(tmp_path), *short, *quiet]) == 0
    assert "embedded backbone and data. The scores say nothing about real data." in capsys.readouterr().out
    record = record_of(tmp_path)
    assert record["backbone"]["name"] == "smoa_lightning/embedded/encoder_backbone"
    own = {"stsb": ("pearson", "spearman", "mse"), "mnli": ("acc", "mnli/acc", "mnli_mismatched/acc")}
    names = own.get(task, ("acc", "mcc", "nll"))
    assert {f"report/{name}" for name in names} <= record["metrics"].keys()


def test_three_classes_by_a_decoder(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    """The head of a decoder reads the last token; both reports of MNLI."""
    flags = arguments(encoder("llama"), Path("unused"), tmp_path, "mnli")
    at = flags.index("--data.path")
    flags[at - 1 : at + 2] = ["embedded"]
    flags += ["--data.limit_train_rows", "32", "--data.limit_report_rows", "16", "--trainer.max_epochs", "1"]
    assert main(["fit", *flags, "--data.selection_rows", "8"]) == 0
    names = ("acc", "mnli/acc", "mnli_mismatched/acc")
    assert {f"report/{name}" for name in names} <= record_of(tmp_path)["metrics"].keys()

"""Whole runs on images: every shipped file, all commands, and a study of methods."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from smoa_lightning.__main__ import main
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.configuration import check_arguments

from ..data.made_rows import write_folder
from ..runs import only_run

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
QUICK = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--data.batch_size", "8",
         "--trainer.log_every_n_steps", "1"]  # fmt: skip


def flags(model: Path, images: Path, root: Path, task: str = "image_classification") -> list[str]:
    return [
        *("--config", str(EXPERIMENTS / "images" / f"{task}.yaml"), "--run.root", str(root), *QUICK),
        *("--model.backbone.source", "local", "--model.backbone.path", str(model)),
        *("--data.source", "local", "--data.path", str(images), "--trainer.max_epochs", "1"),
    ]


def record_of(root: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((only_run(root) / "record.json").read_text())
    return record


def test_fit_test_params_rank_and_export(
    vision_model: Callable[[str], Path], image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CLIP, whose backbone is a part with another name; the merged model classifies in a pipeline of transformers."""
    arguments = flags(vision_model("clip"), image_folder, tmp_path / "runs")
    assert main(["fit", *arguments, "--data.selection_rows", "9", "--trainer.max_epochs", "2"]) == 0
    run, record = only_run(tmp_path / "runs"), record_of(tmp_path / "runs")
    metrics, parts = record["metrics"], record["data"]["parts"]
    assert (parts["train"]["rows"], parts["selection"]["rows"], parts["report"]["rows"]) == (39, 9, 18)
    assert metrics["parameters/head"] == 3 * 24 + 3
    assert metrics["cost/train_images"] == 2 * 39
    assert metrics["cost/images_per_second"] == pytest.approx(78 / metrics["cost/train_seconds"])
    assert not [name for name in metrics if name.startswith("cost/") and "tokens" in name]
    assert record["backbone"]["head"] == {"kind": "image_classification", "names": ["blue", "green", "red"]}
    assert "preprocessor_config.json" in record["backbone"]["files"]
    assert {f"{part}/{name}" for part in ("base", "report", "selection") for name in ("acc", "mcc", "nll")} <= {
        *metrics
    }

    assert (
        main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--run.folder", str(tmp_path / "t")]) == 0
    )
    again = json.loads((tmp_path / "t" / "evaluation.json").read_text())["metrics"]
    assert again["report/nll"] == pytest.approx(metrics["report/nll"], abs=1e-6)
    capsys.readouterr()
    assert main(["params", *arguments, "--json", "--model.budget", "2k"]) == 0
    assert abs(json.loads(capsys.readouterr().out)["trainable_parameters"] - 2000) < 400
    assert main(["rank", str(run), "--truncate"]) == 0
    assert main(["report", str(run)]) == 0

    assert main(["export", str(run), "--output", str(tmp_path / "merged")]) == 0
    facts = json.loads((tmp_path / "merged" / "export.json").read_text())
    assert facts["fidelity"]["largest_difference"] < 1e-4
    assert facts["fidelity"]["after"]["nll"] == pytest.approx(metrics["report/nll"], abs=1e-5)
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "pipeline_tag: image-classification" in card
    assert "AutoImageProcessor" in card
    items = [json.loads(line) for line in (run / "items.jsonl").read_text().splitlines()]
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "merged")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "merged", backend="pil")
    plain = pipeline("image-classification", model=model, image_processor=processor)
    files = sorted((image_folder / "validation").rglob("*.png"))
    named = [plain(str(file), top_k=1)[0]["label"] for file in files]
    assert named == [["blue", "green", "red"][item["prediction_acc"]] for item in items]
    assert main(["export", str(run), "--output", str(tmp_path / "adapter"), "--format", "adapter"]) == 0


def test_every_file_runs_a_step(vision_model: Callable[[str], Path], tmp_path: Path) -> None:
    others = ("base", "pevit", "augmented")  # the overlays have tests of their own
    tasks = [file.stem for file in (EXPERIMENTS / "images").glob("*.yaml") if file.stem not in others]
    assert len(tasks) == 7
    for task in tasks:
        write_folder(tmp_path / task / "rows", task)
        arguments = flags(vision_model("vit"), tmp_path / task / "rows", tmp_path / task / "runs", task)
        arguments += ["--trainer.max_steps", "1", "--model.warmup", "0", "--data.selection_rows", "2"]
        if task == "image_classification":
            arguments += ["--data.class_names", str(list("abcdefgh"))]
        assert main(["fit", *arguments]) == 0
        assert "report/acc" in record_of(tmp_path / task / "runs")["metrics"]


def test_a_prompt_method_is_refused_before_anything_is_scored(
    vision_model: Callable[[str], Path], image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(vision_model("vit"), image_folder, tmp_path / "runs")
    assert main(["fit", *arguments, "--config", str(EXPERIMENTS / "adapters" / "prompt.yaml")]) == 2
    assert "PromptTuningConfig puts virtual tokens before a text, but the model reads images" in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("record.json"))


def test_a_test_of_images_needs_no_training_images(
    vision_model: Callable[[str], Path], image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names of the classes are those of the run; a class without images is no fault, and another class is one."""
    arguments = [*flags(vision_model("vit"), image_folder, tmp_path / "runs"), "--data.selection_rows", "9"]
    assert main(["fit", *arguments]) == 0
    checkpoint = str(only_run(tmp_path / "runs") / "checkpoints" / "best.ckpt")
    assert main(["report", str(only_run(tmp_path / "runs"))]) == 0
    page = (only_run(tmp_path / "runs") / "report" / "run.html").read_text()
    assert "are not shown" not in page
    assert "2: red" in page
    shutil.copytree(image_folder / "validation", tmp_path / "new" / "validation")
    test = ["test", "--ckpt_path", checkpoint, "--data.path", str(tmp_path / "new")]
    assert main([*test, "--run.folder", str(tmp_path / "test")]) == 0
    metrics = json.loads((tmp_path / "test" / "evaluation.json").read_text())["metrics"]
    assert metrics["report/nll"] == record_of(tmp_path / "runs")["metrics"]["report/nll"]
    shutil.rmtree(tmp_path / "new" / "validation" / "red")
    assert main([*test, "--run.folder", str(tmp_path / "fewer")]) == 0
    (tmp_path / "new" / "validation" / "green").rename(tmp_path / "new" / "validation" / "purple")
    capsys.readouterr()
    assert main(test) == 2
    assert "'purple'" in (said := capsys.readouterr().err)
    assert "0 (blue), 1 (green), 2 (red)" in said


def test_a_teacher_of_images(
    vision_model: Callable[[str], Path], image_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    """A model with a head teaches another one; a teacher that reads other pixels is refused."""
    names = {"id2label": dict(enumerate(("blue", "green", "red"))), "label2id": {"blue": 0, "green": 1, "red": 2}}
    shutil.copytree(vision_model("vit"), tmp_path / "teacher")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        AutoModelForImageClassification.from_pretrained(vision_model("vit"), **names).save_pretrained(
            tmp_path / "teacher"
        )
    arguments = flags(vision_model("vit"), image_folder, tmp_path / "runs")
    arguments += ["--model.distillation", json.dumps({"teacher": str(tmp_path / "teacher"), "weight": 1.0})]
    assert main(["fit", *arguments, "--trainer.max_steps", "2", "--model.warmup", "0"]) == 0
    assert record_of(tmp_path / "runs")["status"] == "finished"
    file = tmp_path / "teacher" / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.4, 0.5, 0.5]}))
    assert main(["fit", *arguments, "--trainer.max_steps", "3", "--model.warmup", "0"]) == 2
    assert "the image processor of" in (said := capsys.readouterr().err)
    assert "image_mean is [0.4, 0.5, 0.5] there and [0.5, 0.5, 0.5] here" in said


def test_the_study_of_digits_passes_the_early_check() -> None:
    study = load_study([EXPERIMENTS.parent / "ablations" / "images" / "digits.yaml"])
    runs = list(study.final_runs({}))
    assert len(runs) == 3 * len(study.cells) == 39
    for run in runs:
        if run.seed == study.seeds[0]:
            check_arguments("fit", list(run.arguments))
    adapters = [cell.settings["model"]["adapter"] or {} for cell in study.cells]
    made = [(a["init_args"]["structure"], a["init_args"].get("slot", "update")) for a in adapters if "Surm" in str(a)]
    structures = ("circulant", "toeplitz", "kronecker", "ldr")
    assert made == [(structure, slot) for slot in ("update", "adapter") for structure in structures]


def test_the_study_of_pevit_has_their_grid() -> None:
    study = load_study([EXPERIMENTS.parent / "ablations" / "images" / "pevit.yaml"])
    assert [cell.name for cell in study.cells] == ["method=head", "method=lora", "method=smoa"]
    rate, decay = (list(parameter.choices) for parameter in study.cells[0].parameters)
    assert rate == [10.0**power for power in range(-6, 0)]
    assert decay == [10.0**power for power in range(-6, 1, 2)]
    values = {c.name: {p.key: p.example for p in c.parameters} for c in study.cells}
    for run in study.final_runs(values):
        check_arguments("fit", list(run.arguments))
        settings = run.cell.settings
        assert (settings["data"]["train_per_class"], settings["data"]["batch_size"]) == (5, 64)
        assert settings["model"]["optimizer"]["class_path"] == "torch.optim.SGD"
    lora, smoa = (cell.settings["model"]["adapter"]["init_args"] for cell in study.cells[1:])
    assert (lora["r"], lora["lora_alpha"], lora["target_modules"]) == (4, 128, ["q_proj", "v_proj"])
    assert smoa["target_modules"] == ["q_proj", "v_proj"]


@pytest.mark.slow
def test_a_study_on_digits(tmp_path: Path) -> None:
    """Two methods run, and the report has their accuracies."""
    file = EXPERIMENTS.parent / "ablations" / "images" / "digits.yaml"
    short = ["--trainer.max_epochs=1", "--data.limit_report_rows=40", "--seeds=1", "--data.limit_train_rows=64"]
    short.append("--trainer.check_val_every_n_epoch=1")
    axes = '--axes.method=[{"head": {"frozen": true, "model.adapter": null}}, {"smoa": {"r": 4}}]'
    assert main(["ablate", "--config", str(file), "--root", str(tmp_path), axes, *short]) == 0
    assert main(["report", str(tmp_path / "digits")]) == 0
    (table,) = (tmp_path / "digits").rglob("report.md")
    assert "| **method=head** | " in (text := table.read_text())
    assert "| method=smoa | " in text


def test_few_shot_lora_of_pevit(clip: Path, image_folder: Path, tmp_path: Path) -> None:
    overlay = EXPERIMENTS / "images" / "pevit.yaml"
    arguments = flags(clip, image_folder, tmp_path / "runs")
    assert main(["fit", *arguments, "--config", str(overlay), "--trainer.max_epochs", "2"]) == 0
    record = record_of(tmp_path / "runs")
    assert record["data"]["parts"]["train"]["rows"] == 15
    adapter = record["config"]["model"]["adapter"]["init_args"]
    assert (adapter["r"], adapter["lora_alpha"]) == (4, 128)
    assert record["config"]["model"]["optimizer"]["class_path"] == "torch.optim.SGD"
    assert record["metrics"]["parameters/trainable"] == 2 * 2 * (4 * 24 + 24 * 4)

"""Whole runs with a teacher, and teachers that are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from smoa_lightning.__main__ import main
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.common.checksums import sealed, sha256
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.embedded import backbone_folder
from smoa_lightning.objectives import DistillationConfig, objective_of
from smoa_lightning.training.adapter_folder import save_adapter
from smoa_lightning.training.module import FineTuneModule
from smoa_lightning.training.teacher import image_difference, open_teacher

from ..runs import Killed, die_at_step, only_run
from .conftest import head_teacher

# -------------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def run_arguments(tiny_backbone: Path, piqa_folder: Path) -> list[str]:
    """Flags of a run of six steps, without its root and its teacher."""
    return [
        *("fit", "--config", "piqa", "--forgetting.text", "null", "--trainer.max_steps", "6"),
        *("--model.backbone.source", "local", "--model.backbone.path", str(tiny_backbone)),
        *("--data.source", "local", "--data.path", str(piqa_folder), "--data.limit_train_rows", "48"),
        *("--data.limit_report_rows", "8", "--model.adapter.r", "4", "--data.batch_size", "8"),
        *("--data.selection_rows", "8", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *("--trainer.log_every_n_steps", "1", "--run.score_base", "false", "--checkpoint.every_n_steps", "2"),
    ]


@pytest.fixture(scope="module")
def teacher_run(run_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that is the teacher of others; a test that changes it works on a copy."""
    root = tmp_path_factory.mktemp("teacher_run")
    assert main([*run_arguments, "--model.optimizer.lr", "0.05", "--run.root", str(root)]) == 0
    return only_run(root)


def record_of(root: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((only_run(root) / "record.json").read_text())
    return record


def test_run_with_a_teacher_and_its_interruption(
    run_arguments: list[str], teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The student moves to its teacher; a killed run ends with the same bits; its teacher must be the same.

    Afterwards, test and export need no teacher.
    """
    teacher = tmp_path / "teacher"
    shutil.copytree(teacher_run / "adapter" / "best", teacher)
    arguments = [*run_arguments, "--config", "overlays/distillation", "--model.distillation.teacher", str(teacher)]
    arguments += ["--model.distillation.weight", "1"]
    arguments += ["--model.optimizer.lr", "0.02", "--model.adapter.dropout", "0.1"]
    assert main([*arguments, "--run.root", str(tmp_path / "whole")]) == 0
    whole = only_run(tmp_path / "whole")
    kl = [event.value for event in EventAccumulator(str(whole)).Reload().Scalars("train/kl")]
    assert kl[-1] < 0.7 * kl[0]
    record = record_of(tmp_path / "whole")
    assert "-distilled-" in record["name"]
    assert record["config"]["model"]["distillation"]["teacher"] == str(teacher)
    assert record["teacher"]["adapter"].keys() >= {"adapter_model.safetensors", "adapter_config.json"}
    assert record["teacher"]["backbone"]["sha256"] == record["backbone"]["sha256"]
    plain = json.loads((teacher_run / "record.json").read_text())
    for name in ("parameters/total", "parameters/trainable"):
        assert record["metrics"][name] == plain["metrics"][name]

    with monkeypatch.context() as patch:
        die_at_step(patch, 3)
        with pytest.raises(Killed):
            main([*arguments, "--run.root", str(tmp_path / "cut")])
    weights, facts = teacher / "adapter_model.safetensors", teacher / "smoa_lightning.json"
    saved = weights.read_bytes(), facts.read_bytes()
    save_file({name: value * 2 for name, value in load_file(weights).items()}, weights)
    other = json.loads(facts.read_text())
    other["sha256"][weights.name] = sha256(weights)
    facts.write_text(json.dumps(sealed(other)))
    capsys.readouterr()
    assert main([*arguments, "--run.root", str(tmp_path / "cut")]) == 2
    error = capsys.readouterr().err
    assert f"began with different files of its teacher '{teacher}' (adapter_model.safetensors changed" in error
    weights.write_bytes(saved[0])
    facts.write_bytes(saved[1])
    assert main([*arguments, "--run.root", str(tmp_path / "cut")]) == 0
    name = "adapter/last/adapter_model.safetensors"
    once, again = load_file(whole / name), load_file(only_run(tmp_path / "cut") / name)
    assert all(torch.equal(once[key], again[key]) for key in once)

    shutil.rmtree(teacher)
    checkpoint = str(whole / "checkpoints" / "best.ckpt")
    assert main(["test", "--ckpt_path", checkpoint, "--run.folder", str(tmp_path / "test")]) == 0
    tested = json.loads((tmp_path / "test" / "evaluation.json").read_text())["metrics"]
    assert tested["report/acc"] == record["metrics"]["report/acc"]
    assert main(["export", str(whole), "--output", str(tmp_path / "merged")]) == 0


def test_run_with_a_cache_and_its_page(
    run_arguments: list[str],
    teacher_run: Path,
    tiny_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    """Record and page have the mass; the cache of another teacher is refused before a weight is read."""
    cache = ["--model.distillation.cache_folder", str(tmp_path / "cache"), "--model.distillation.cache_top", "16"]
    arguments = [*run_arguments, *cache, "--trainer.max_steps", "1", "--run.root", str(tmp_path / "runs")]
    assert main([*arguments, "--model.distillation.teacher", str(teacher_run)]) == 0
    found = record_of(tmp_path / "runs")["teacher"]["cache"]
    assert (found["top"], found["rows"], found["computed_rows"]) == (16, 48, 48)
    assert 0 < found["smallest_mass"] < found["mean_mass"] < 1
    assert main(["report", str(only_run(tmp_path / "runs"))]) == 0
    page = (only_run(tmp_path / "runs") / "report" / "run.html").read_text()
    assert f"{found['smallest_mass']:.4%}" in page
    assert f"in the cache have {100 * found['mean_mass']:.0f} % of its mass" in capsys.readouterr().out
    monkeypatch.setattr(FineTuneModule, "configure_model", lambda module: pytest.fail("a weight was loaded"))
    assert main([*arguments, "--model.distillation.teacher", str(tiny_backbone)]) == 2
    assert "has distributions of another teacher (adapter" in capsys.readouterr().err
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_image_processors_are_compared_in_both_directions() -> None:
    """A setting that one class lacks changes pixels unless it is off; a size of crops is one that nothing uses."""
    same = {"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    plain = ViTImageProcessorPil(**same)
    shifted = EfficientNetImageProcessorPil(**same, rescale_offset=True, rescale_factor=1 / 255, include_top=False)
    assert image_difference(plain, shifted) == "rescale_offset is True there and None here"
    assert image_difference(shifted, plain) == "rescale_offset is None there and True here"
    cropped = CLIPImageProcessorPil(**same, do_center_crop=True, crop_size={"height": 6, "width": 6})
    assert "crop" in image_difference(plain, cropped)
    uncropped = CLIPImageProcessorPil(**same, do_center_crop=False)
    assert image_difference(plain, uncropped) == image_difference(uncropped, plain) == ""


# ----------------------------------------------------------------------------------------------------------- refusals


def test_teachers_that_do_not_fit_are_refused_before_weights_are_read(
    tiny_backbone: Path, piqa_folder: Path, teacher_folder: Path, teacher_run: Path, tmp_path: Path
) -> None:
    def refusal(settings: DistillationConfig, max_length: int = 256, frozen: bool = False) -> str:
        module = FineTuneModule(BackboneConfig("local", path=str(tiny_backbone)), distillation=settings, frozen=frozen)
        with pytest.raises(UserError) as error:
            open_teacher(module, max_length)
        return str(error.value)

    assert "'runs/no/such' does not exist" in refusal(DistillationConfig("runs/no/such"))
    assert "there is no folder 'runs/nothing', and the hub is switched off" in refusal(
        DistillationConfig("runs/nothing")
    )
    assert "neither a run with an adapter nor" in refusal(DistillationConfig(str(piqa_folder)))
    assert "model.frozen is true" in refusal(DistillationConfig(str(teacher_run)), frozen=True)
    encoder = refusal(DistillationConfig(str(backbone_folder("sequence_classification"))))
    assert encoder.startswith("model.distillation.teacher: ")
    assert "is an encoder" in encoder
    assert "set data.max_length to at most 2048" in refusal(DistillationConfig(str(teacher_folder)), max_length=4000)

    for name, change, words in (
        ("vocabulary", {"vocab_size": 100}, "has 100 rows and that of the backbone 259, but the tokenizer has 259"),
        ("tokenizer", {}, r"differs from that of the backbone (the token 'A' has id "),
        ("words", {}, r"differs from that of the backbone (its pre-tokenizer differs)"),
    ):
        folder = tmp_path / name
        shutil.copytree(teacher_folder, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | change))
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        if name == "tokenizer":
            vocabulary = tokenizer["model"]["vocab"]
            vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
        if name == "words":
            tokenizer["pre_tokenizer"]["use_regex"] = True
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        assert words in refusal(DistillationConfig(str(folder)))


def test_heads_of_other_tasks_are_refused(
    encoder: Callable[[str], Path], glue_folder: Path, teacher_run: Path, tmp_path: Path
) -> None:
    def refusal(task: str, settings: DistillationConfig) -> str:
        data = TaskDataModule(task, "local", path=str(glue_folder / task), max_length=24)
        module = FineTuneModule(BackboneConfig("local", path=str(encoder("bert"))), distillation=settings)
        module.objective = objective_of(data.sets)
        with pytest.raises(UserError) as error:
            open_teacher(module, 24)
        return str(error.value)

    bare, three = str(encoder("bert")), str(head_teacher(encoder("bert"), tmp_path / "three", num_labels=3))
    assert "which was not trained on a task with labels" in refusal("rte", DistillationConfig(bare))
    assert "has the outputs LABEL_0, LABEL_1, LABEL_2, but the run has" in refusal("rte", DistillationConfig(three))
    named = {"id2label": {0: "not_entailment", 1: "entailment"}, "label2id": {"not_entailment": 0, "entailment": 1}}
    turned = head_teacher(encoder("bert"), tmp_path / "turned", **named)
    assert "in this order" in refusal("rte", DistillationConfig(str(turned)))
    assert "has the head language model, but the run has" in refusal("rte", DistillationConfig(str(teacher_run)))
    several = head_teacher(encoder("bert"), tmp_path / "several", problem_type="multi_label_classification")
    assert "has several labels for a row (multi_label_class" in refusal("rte", DistillationConfig(str(several)))
    assert "positions is 'all', but a row of sequence classification" in refusal(
        "rte", DistillationConfig(bare, positions="all")
    )
    assert "a number has no distribution" in refusal("stsb", DistillationConfig(bare, temperature=2.0))


def test_the_overlay_needs_a_teacher(run_arguments: list[str], capsys: Any) -> None:
    assert main([*run_arguments, "--config", "overlays/distillation"]) == 2
    sentence = (
        "model.distillation.weight is set, but model.distillation.teacher is not: name a run, a folder of a model"
    )
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--model.distillation.weight", "1.5"],
            "model.distillation.weight is 1.5, but must be at least 0 and at most 1",
        ),
        (["--model.distillation.temperature", "0"], "model.distillation.temperature is 0, but must be above 0"),
        (["--model.distillation.weigth", "0.5"], "unknown key"),
        (["--model.distillation.cache_top", "8"], "cache_top is set, but model.distillation.cache_folder is not"),
        (["--model.distillation.cache_top", "0"], "model.distillation.cache_top is 0, but must be at least 1"),
        (["--model.distillation.positions", "prompt"], "model.distillation.positions is 'prompt', but takes"),
    ],
)
def test_wrong_settings_are_refused(flags: list[str], words: str, run_arguments: list[str], capsys: Any) -> None:
    assert main([*run_arguments, "--model.distillation.teacher", "somewhere", *flags]) == 2
    assert words in capsys.readouterr().err


def test_settings_without_a_teacher_are_refused(run_arguments: list[str], capsys: Any) -> None:
    assert main([*run_arguments, "--model.distillation.weight", "0.3"]) == 2
    assert "model.distillation.weight is set, but model.distillation.teacher is not" in capsys.readouterr().err


def test_virtual_tokens_with_packing_are_refused_before_scores(
    run_arguments: list[str], tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A teacher with a prompt, a prompt as the strategy, and a prompt next to an adapter."""
    prompt = tmp_path / "prompt"
    module = FineTuneModule(BackboneConfig("local", path=str(tiny_backbone)), PromptTuningConfig(num_virtual_tokens=2))
    module.configure_model()
    facts = {"task": "piqa", "which": "best", "step": 1, "data_source": "local"}
    save_adapter(module, prompt, {**facts, "selection": {"metric": "acc", "score": None}})
    monkeypatch.setattr(FineTuneModule, "configure_model", lambda module: pytest.fail("a weight was loaded"))
    teacher = ["--config", "overlays/distillation", "--model.distillation.teacher", str(prompt)]
    for flags, start in (
        (teacher, "model.distillation.teacher: data.packing: PROMPT_TUNING puts virtual tokens"),
        (["--config", "adapters/prompt"], "data.packing: PROMPT_TUNING puts virtual tokens"),
        (["--config", "overlays/with_prompt"], "data.packing: "),
    ):
        own = [flag for flag in run_arguments if flag not in ("--model.adapter.r", "4")]
        arguments = [*own, *flags, "--data.packing", "true", "--run.root", str(tmp_path / "runs")]
        assert main(arguments) == 2
        assert start in capsys.readouterr().err


@pytest.mark.parametrize("teacher", ["runs/no/such", "./nothing"])
def test_params_refuses_a_teacher_that_does_not_exist(teacher: str, run_arguments: list[str], capsys: Any) -> None:
    """In the sentence of fit, and without a table."""
    flags = [*run_arguments[1:], "--config", "overlays/distillation", "--model.distillation.teacher", teacher]
    found = []
    for command in (["params", *flags, "--no_memory"], ["fit", *flags]):
        assert main(command) == 2
        shown = capsys.readouterr()
        assert "trainable parameters" not in shown.out
        found.append(next(line for line in shown.err.splitlines() if "model.distillation.teacher" in line))
    assert found[0] == found[1]
    assert f"folder '{teacher}'" in found[0]
    assert "cache" not in found[0]  # the path is no name on the hub

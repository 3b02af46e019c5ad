"""The traced memory of a step with a new head, for texts and images, against torch's record of a real step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoConfig, AutoModel, BertConfig, ViTConfig
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from smoa_lightning.__main__ import main
from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.backbones.heads import Head
from smoa_lightning.backbones.processor import pixels_of
from smoa_lightning.objectives import DistillationConfig, Objective, classification, regression
from smoa_lightning.training.memory.estimate import estimate_memory
from smoa_lightning.training.memory.step import StepMemory, StepShape
from smoa_lightning.training.module import FineTuneModule

from .test_estimate import real_step_peak

ROWS, LENGTH, SIZE = 16, 64, 32
SIZES: dict[str, Any] = {
    **{"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2},
    **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
NAMES = ("a", "b", "c")
CLASSES = Objective("sequence_classification", classification.loss, Head("sequence_classification", NAMES),
                    classification.distilled)  # fmt: skip
NUMBER = Objective("regression", regression.loss, Head("regression", ("number",)), regression.distilled)
IMAGES = Objective("image_classification", classification.loss, Head("image_classification", NAMES))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Objective], Path]:
    bert, vit = (tmp_path_factory.mktemp(name) for name in ("bert", "vit"))
    torch.manual_seed(0)
    AutoModel.from_config(BertConfig(**SIZES, vocab_size=100, max_position_embeddings=LENGTH)).save_pretrained(bert)
    AutoModel.from_config(ViTConfig(**SIZES, image_size=SIZE, patch_size=4)).save_pretrained(vit)
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(vit)
    return lambda objective: vit if objective is IMAGES else bert


def module_of(folder: Path, objective: Objective, adapter: Any = None, **settings: Any) -> FineTuneModule:
    module = FineTuneModule(BackboneConfig("local", path=str(folder)), adapter, **settings)
    module.objective = objective
    return module


def shape_of(objective: Objective, folder: Path) -> StepShape:
    pixels = pixels_of(ViTImageProcessorPil.from_pretrained(folder)) if objective is IMAGES else None
    return StepShape(ROWS, LENGTH, 1, outputs=len(objective.head.names), pixels=pixels)


def batch_of(objective: Objective) -> dict[str, Any]:
    labels = torch.arange(ROWS, dtype=torch.float64) % len(objective.head.names)
    if objective is IMAGES:
        return {"pixel_values": torch.randn(ROWS, 3, SIZE, SIZE), "labels": labels}
    ids = torch.randint(5, 90, (ROWS, LENGTH))
    mask = torch.ones_like(ids)
    mask[0, -1] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


STRATEGIES: dict[str, dict[str, Any]] = {
    "lora": {"adapter": peft.LoraConfig(r=4)},
    "full": {},
    "head": {"frozen": True},
    "smoa": {"adapter": SMoAConfig(r=4, num_subspaces=2)},
}


@pytest.mark.parametrize(
    "objective", [CLASSES, IMAGES, pytest.param(NUMBER, marks=pytest.mark.slow)], ids=lambda o: o.name
)
@pytest.mark.parametrize("name", ["lora", *(pytest.param(n, marks=pytest.mark.slow) for n in ("full", "head", "smoa"))])
def test_the_peak_is_that_of_a_real_step(
    name: str, objective: Objective, folders: Callable[[Objective], Path], tmp_path: Path
) -> None:
    folder = folders(objective)
    step = estimate_memory(module_of(folder, objective, **STRATEGIES[name]), shape_of(objective, folder)).configured
    assert isinstance(step, StepMemory), step
    module = module_of(folder, objective, **STRATEGIES[name])
    module.processor = None  # type: ignore[assignment]  # the pad token means nothing here
    module.configure_model()
    loss = lambda network, batch: objective.loss(network, batch)[0]  # noqa: E731
    measured = real_step_peak(module.network, batch_of(objective), loss, tmp_path)
    expected = step.total - step.peak["weights"] - step.peak["optimizer"]
    assert expected == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize("objective", [CLASSES, pytest.param(NUMBER, marks=pytest.mark.slow)], ids=lambda o: o.name)
def test_a_teacher_of_a_head_is_in_the_estimate(objective: Objective, folders: Callable[[Objective], Path]) -> None:
    """Its weights once more, and little else: its forward has no graph."""
    from smoa_lightning.training.teacher import Teacher

    folder, shape = folders(objective), shape_of(objective, folders(objective))
    settings = DistillationConfig(str(folder))
    module = module_of(folder, objective, peft.LoraConfig(r=4), distillation=settings)
    teacher = Teacher.__new__(Teacher)  # its head need not be in the files to be counted
    teacher.settings, teacher.adapter, teacher.config, teacher.location = (
        settings,
        None,
        module.backbone_config,
        module.location,
    )
    plain = estimate_memory(module_of(folder, objective, peft.LoraConfig(r=4)), shape).configured
    taught = estimate_memory(module, shape, teacher=teacher).configured
    assert isinstance(plain, StepMemory)
    assert isinstance(taught, StepMemory), taught
    size = 4 * sum(p.numel() for p in teacher.skeleton().parameters())
    assert size <= taught.largest["weights"] - plain.largest["weights"] < size + 2000  # position ids


def test_params_has_memory_and_disk_of_a_head(
    folders: Callable[[Objective], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.objectives.image_models import write_images

    write_images(tmp_path / "images" / "train", {"red": 2, "blue": 2})
    images = [
        "--config",
        "images/image_classification",
        "--data.source",
        "local",
        "--data.path",
        str(tmp_path / "images"),
    ]
    images += [
        "--model.backbone.source",
        "local",
        "--model.backbone.path",
        str(folders(IMAGES)),
        "--data.batch_size",
        "4",
    ]
    assert main(["params", *images]) == 0
    shown = capsys.readouterr().out
    assert f"memory of a training step, 4 images of 3 x {SIZE} x {SIZE} with a label each (data.batch_size):" in shown
    assert "disk: checkpoint about " in shown
    assert main(["params", *images, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["memory"]["pixels"] == [3, SIZE, SIZE]
    assert facts["memory"]["without_checkpointing"]["total"] > facts["memory"]["with_checkpointing"]["total"] > 0
    assert facts["disk"]["checkpoint"] > 3 * 4 * (facts["trainable_parameters"] + facts["head_parameters"])
    assert main(["params", *images, "--length", "8"]) == 2
    assert "--length counts tokens, but the rows are images" in capsys.readouterr().err
    texts = ["--config", "glue/cola", "--model.backbone.source", "embedded", "--data.source", "embedded"]
    assert main(["params", *texts, "--targets", "3"]) == 2
    assert "--targets counts tokens that are predicted, but the rows have one label each" in capsys.readouterr().err
    assert AutoConfig.from_pretrained(folders(IMAGES)).image_size == SIZE

"""The traced memory of a step against torch's own record of every allocation in a real step."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch._subclasses import FakeTensor
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM

from smoa_lightning.adapters import BottleneckConfig, HyperAdaptConfig, MoraConfig, SMoAConfig, SurmConfig, attach
from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate
from smoa_lightning.common.errors import UserError
from smoa_lightning.evaluation.scoring import summed_cross_entropy, target_logits
from smoa_lightning.objectives import DistillationConfig, language_modeling
from smoa_lightning.training.memory.estimate import estimate_memory, quantised_bytes
from smoa_lightning.training.memory.fake_model import meta_model
from smoa_lightning.training.memory.step import StepMemory, StepShape
from smoa_lightning.training.module import FineTuneModule
from smoa_lightning.training.teacher import Teacher

ROWS, LENGTH = 16, 96
SHAPE = StepShape(ROWS, LENGTH, LENGTH - 1)
STRATEGIES: dict[str, peft.PeftConfig | None] = {
    "full": None,
    "lora": peft.LoraConfig(r=4),
    "loha": peft.LoHaConfig(r=4),
    "pissa": peft.LoraConfig(r=4, init_lora_weights="pissa"),
    "hira": peft.HiraConfig(r=4),
    "frod": peft.FrodConfig(sparse_rate=0.02),
    "smoa_blocks": SMoAConfig(r=4, num_subspaces=2),
    "smoa_energy": SMoAConfig(r=4, num_subspaces=2, partition="spectral_energy"),
    "surm": SurmConfig(structure="circulant"),
    "mora": MoraConfig(r=4),
    "hyperadapt": HyperAdaptConfig(),
    "bottleneck": BottleneckConfig(bottleneck_size=8),
}


def plain_loss(network: Any, batch: dict[str, Any]) -> torch.Tensor:
    return summed_cross_entropy(*target_logits(network, batch))[0]


def real_peak(network: Any, folder: Path, loss_of: Callable[[Any, dict[str, Any]], torch.Tensor] = plain_loss) -> int:
    """Return the most bytes that a step of token rows has allocated above its start."""
    ids = torch.randint(5, 200, (ROWS, LENGTH))
    mask = torch.ones_like(ids)
    mask[0, -1] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    return real_step_peak(network, batch, loss_of, folder)


def real_step_peak(
    network: Any, batch: dict[str, Any], loss_of: Callable[[Any, dict[str, Any]], torch.Tensor], folder: Path
) -> int:
    """Return the most bytes of a step above weights and optimizer, from torch's record of its allocator.

    The gradients of the step before exist until the forward is done, as under Lightning.
    """
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-3)

    def step() -> None:
        loss = loss_of(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    network.train()
    step()
    held = sum(p.grad.numel() * p.grad.element_size() for p in network.parameters() if p.grad is not None)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    file = folder / "trace.json"
    record.export_chrome_trace(str(file))
    events = [e for e in json.loads(file.read_text())["traceEvents"] if e.get("name") == "[memory]"]
    now = peak = held
    for event in sorted(events, key=lambda event: event["ts"]):
        now += event["args"]["Bytes"]
        peak = max(peak, now)
    return peak


QUICK = ("full", "lora", "smoa_energy")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in STRATEGIES]
)
def test_the_peak_above_weights_is_that_of_a_real_step(name: str, tiny_backbone: Path, tmp_path: Path) -> None:
    config = BackboneConfig("local", path=str(tiny_backbone))
    estimate = estimate_memory(FineTuneModule(config, STRATEGIES[name]), SHAPE)
    for checkpointing, step in estimate.steps.items():
        settings = dataclasses.replace(config, gradient_checkpointing=checkpointing)
        network: Any = load_model(settings, locate(settings)).requires_grad_(STRATEGIES[name] is None)
        if STRATEGIES[name] is not None:
            network = attach(network, STRATEGIES[name], 0)
        measured = real_peak(network, tmp_path)  # also: real buffers are not those of the fake step
        assert isinstance(step, StepMemory), step
        expected = step.total - step.peak["weights"] - step.peak["optimizer"]
        assert expected == pytest.approx(measured, rel=0.02)


def test_a_teacher_is_in_the_estimate(tiny_backbone: Path, tmp_path: Path) -> None:
    """The peak with a teacher is that of a real step. Weights in memory once do not count twice."""
    config, settings = BackboneConfig("local", path=str(tiny_backbone)), DistillationConfig(str(tiny_backbone))
    module = FineTuneModule(config, peft.LoraConfig(r=4), distillation=settings)
    teacher = Teacher(settings, config, module.objective.head)
    found = [estimate_memory(module, SHAPE, teacher=each).configured for each in (None, teacher)]
    plain, taught = (step for step in found if isinstance(step, StepMemory))
    model = load_model(config, locate(config))
    size = sum(parameter.numel() * 4 for parameter in model.parameters())
    assert size <= taught.largest["weights"] - plain.largest["weights"] < size + 200  # rotary frequencies
    network = attach(load_model(config, locate(config)), peft.LoraConfig(r=4), 0)
    loss = lambda network, batch: language_modeling.distilled(network, model, batch, settings).loss  # noqa: E731
    expected = taught.total - taught.peak["weights"] - taught.peak["optimizer"]
    assert expected == pytest.approx(real_peak(network, tmp_path, loss), rel=0.02)
    teacher.adapter = tmp_path  # an adapter on the weights of the student
    (tmp_path / "adapter_config.json").write_text("{}")
    shared = estimate_memory(module, SHAPE, teacher=teacher).configured
    assert isinstance(shared, StepMemory)
    assert shared.largest["weights"] == plain.largest["weights"]


def test_sizes_are_those_of_the_tensors(tiny_backbone: Path) -> None:
    module = FineTuneModule(BackboneConfig("local", path=str(tiny_backbone)))
    step = estimate_memory(module, SHAPE).configured
    assert isinstance(step, StepMemory)
    weights = list(AutoModelForCausalLM.from_pretrained(tiny_backbone).parameters())
    size = sum(weight.numel() * 4 for weight in weights)
    assert step.largest["weights"] - size < 200  # the frequencies of the rotary embedding
    assert step.largest["gradients"] == size
    assert 2 * size <= step.peak["optimizer"] <= 2 * size + 8 * len(weights)  # two moments, and a number of steps each
    assert step.largest["logits"] >= 2 * ROWS * (LENGTH - 1) * weights[0].shape[0] * 4


def test_gradients_stay_when_a_step_accumulates(tiny_backbone: Path) -> None:
    module = FineTuneModule(BackboneConfig("local", path=str(tiny_backbone)))
    plain, accumulating = (
        estimate_memory(module, dataclasses.replace(SHAPE, accumulates=value)).configured for value in (False, True)
    )
    assert isinstance(plain, StepMemory)
    assert isinstance(accumulating, StepMemory)
    assert (plain.peak["gradients"], accumulating.peak["gradients"]) == (0, plain.largest["gradients"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "more"),
    [({"packed": True}, True), ({"autocast": torch.bfloat16}, False), ({"targets": 3}, False)],
    ids=["packed", "mixed", "few targets"],
)
def test_other_steps_need_more_or_less_memory(change: dict[str, Any], more: bool, tiny_backbone: Path) -> None:
    """Packed rows have a mask for each pair of tokens; half precision and fewer logits are smaller."""
    module = FineTuneModule(BackboneConfig("local", path=str(tiny_backbone)), peft.LoraConfig(r=4))
    steps = [estimate_memory(module, shape).configured for shape in (SHAPE, dataclasses.replace(SHAPE, **change))]
    plain, other = (step.total for step in steps if isinstance(step, StepMemory))
    assert (other > plain) == more, (plain, other)
    assert other != plain


def test_the_given_model_is_not_changed(tiny_backbone: Path) -> None:
    """``params`` builds its model once; each step is traced on a copy of it."""
    module = FineTuneModule(BackboneConfig("local", path=str(tiny_backbone)), STRATEGIES["smoa_energy"])
    network: Any = meta_model(module)
    assert estimate_memory(module, SHAPE, network) == estimate_memory(module, SHAPE)
    assert not any(isinstance(tensor, FakeTensor) for tensor in network.parameters())
    assert not network.get_base_model().is_activation_checkpointing


def test_a_step_that_cannot_be_traced_has_a_reason(tiny_backbone: Path) -> None:
    config = BackboneConfig("local", path=str(tiny_backbone))
    estimate = estimate_memory(FineTuneModule(config, peft.PrefixTuningConfig(num_virtual_tokens=2)), SHAPE)
    assert isinstance(estimate.steps[False], StepMemory)
    assert "does not work with gradient checkpointing" in str(estimate.steps[True])
    checkpointed = dataclasses.replace(config, gradient_checkpointing=True)
    module = FineTuneModule(checkpointed, peft.PrefixTuningConfig(num_virtual_tokens=2))
    with pytest.raises(UserError, match="does not work with gradient checkpointing"):
        estimate_memory(module, SHAPE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantised_weights_are_smaller(kind: str, tiny_backbone: Path) -> None:
    lora = peft.LoraConfig(r=4)
    sizes = {}
    for quantization, when in ((None, "per_forward"), (kind, "per_forward"), (kind, "cached")):
        config = BackboneConfig(
            "local", path=str(tiny_backbone), dtype="bfloat16", quantization=quantization, dequantize=when
        )
        step = estimate_memory(FineTuneModule(config, lora), SHAPE).configured
        assert isinstance(step, StepMemory)
        sizes[quantization, when] = step.largest["weights"]
    model = AutoModelForCausalLM.from_pretrained(tiny_backbone)
    linear = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not model.lm_head]
    stored = sum(quantised_bytes(weight.shape, kind) for weight in linear)
    assert sizes[kind, "cached"] == sizes[None, "per_forward"] + stored
    assert sizes[kind, "per_forward"] == sizes[kind, "cached"] - 2 * sum(weight.numel() for weight in linear)

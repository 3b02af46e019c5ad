"""The memory of a run, from its settings: exact shapes of one step, with formulas for quantised weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.training.memory.fake_model import fake_copy, meta_model
from smoa_lightning.training.memory.live_bytes import ACTIVATIONS, WEIGHTS
from smoa_lightning.training.memory.step import HeadStep, StepMemory, StepShape, TaughtStep, trace_step
from smoa_lightning.training.module import FineTuneModule
from smoa_lightning.training.teacher import Teacher

BLOCK = 64  # weights that share a scale in nf4 and fp4


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory of a training step, without and with gradient checkpointing.

    Attributes:
        shape: The shape of the batch.
        checkpointing: Whether the settings have gradient checkpointing.
        steps: Gradient checkpointing -> its bytes, or the reason why they are not known.
    """

    shape: StepShape
    checkpointing: bool
    steps: dict[bool, StepMemory | str]

    @property
    def configured(self) -> StepMemory | str:
        """The memory of the settings as they are."""
        return self.steps[self.checkpointing]


def estimate_memory(
    module: FineTuneModule, shape: StepShape, network: nn.Module | None = None, teacher: Teacher | None = None
) -> MemoryEstimate:
    """Estimate the memory of a training step.

    Args:
        module: The settings of the model, whose budget is resolved; nothing is loaded.
        shape: The shape of the batch of one process.
        network: The model of these settings from :func:`meta_model`, which is not changed; it is built if it is None.
        teacher: The teacher of a distilled run, which counts without its adapter.

    Raises:
        UserError: The strategy does not fit the backbone.
    """
    configured = module.backbone_config.gradient_checkpointing
    network = meta_model(module) if network is None else network
    steps: dict[bool, StepMemory | str] = {}
    for checkpointing in (configured, not configured):
        try:
            steps[checkpointing] = _step(module, shape, network, checkpointing, teacher)
        except Exception as error:  # what a model or an optimizer raises for tensors without values has no common class
            if isinstance(error, UserError) and checkpointing == configured:
                raise
            steps[checkpointing] = one_line(error, 300, kind=not isinstance(error, UserError))
    return MemoryEstimate(shape, configured, steps)


def _step(
    module: FineTuneModule, shape: StepShape, network: nn.Module, checkpointing: bool, teacher: Teacher | None
) -> StepMemory:
    config, adapter = module.backbone_config, module.prompt_config or module.adapter_config
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    if checkpointing and adapter is not None and adapter.is_prompt_learning:
        copied = fake_copy(meta_model(module, checkpointing=True), mode)  # peft refuses some of them when it attaches
    else:
        copied = fake_copy(network, mode, checkpointing)
    taught: dict[str, Any] = {}
    model = None
    if module.distillation is not None and teacher is not None:
        absent = module.distillation.cache_folder is not None or teacher.shares_weights_of(module)
        model = None if absent else fake_copy(teacher.skeleton(), mode).eval()
        taught["further"] = [] if model is None else [*model.parameters(), *model.buffers()]
        taught["loss"] = TaughtStep(model, module.distillation)
    if shape.outputs:
        taught["loss"] = HeadStep(module.objective, module.distillation, model)
    memory = trace_step(copied, module.optimizer_factory, shape, mode, **taught)
    if config.quantization is None:
        return memory
    return _quantised(memory, copied, config.quantization, cached=config.dequantize == "cached")


def quantised_bytes(weight: torch.Size, kind: str) -> int:
    """Return the bytes of a weight (d_out, d_in) in a format of bitsandbytes.

    * int8: d_out d_in + 4 d_out, one byte a weight and a float32 scale a row.
    * nf4, fp4: ceil(d_out d_in / 2) + 4 ceil(d_out d_in / 64), half a byte a weight and a float32 scale for 64 weights.

    >>> quantised_bytes(torch.Size((128, 64)), "int8"), quantised_bytes(torch.Size((128, 64)), "nf4")
    (8704, 4608)
    """
    if kind == "int8":
        return weight.numel() + 4 * weight[0]
    return -(-weight.numel() // 2) + 4 * -(-weight.numel() // BLOCK)


def _quantised(memory: StepMemory, network: Any, kind: str, cached: bool) -> StepMemory:
    """Replace the float weights of the linear layers, but the output layer, by quantised ones.

    A layer uses its dequantised weight one at a time (the largest of them counts as an activation), or all of them stay
    in memory.
    """
    head = network.get_output_embeddings()
    base = network.get_base_model() if hasattr(network, "get_base_model") else network
    frozen = [
        layer.weight
        for layer in base.modules()
        if type(layer) is nn.Linear and layer is not head and not layer.weight.requires_grad
    ]
    floats = [weight.numel() * weight.element_size() for weight in frozen]
    saved = (0 if cached else sum(floats)) - sum(quantised_bytes(weight.shape, kind) for weight in frozen)
    temporary = 0 if cached else max(floats, default=0)
    changes = {WEIGHTS: -saved, ACTIVATIONS: temporary}
    largest, peak = ({k: v + changes.get(k, 0) for k, v in sizes.items()} for sizes in (memory.largest, memory.peak))
    return StepMemory(largest, peak)

"""What ``params`` reports: layers, parameters, memory and disk of the settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import lightning as L
import torch
from peft import PeftModel

from smoa_lightning.adapters.budget import BudgetFit
from smoa_lightning.adapters.inspect import AdaptedLayer, adapted_layers, sizes
from smoa_lightning.adapters.method_names import strategy_name
from smoa_lightning.backbones.backbone import load_skeleton
from smoa_lightning.backbones.heads import new_head
from smoa_lightning.backbones.processor import pixels_of
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.training.memory.disk import DiskEstimate, estimate_disk
from smoa_lightning.training.memory.estimate import MemoryEstimate, estimate_memory
from smoa_lightning.training.memory.fake_model import meta_model
from smoa_lightning.training.memory.live_bytes import OPTIMIZER
from smoa_lightning.training.memory.step import StepMemory, StepShape
from smoa_lightning.training.module import FineTuneModule
from smoa_lightning.training.optimizer import make_optimizer
from smoa_lightning.training.teacher import Teacher, open_teacher

MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class TeacherSize:
    """The size of a teacher without its adapter.

    Attributes:
        name: Its name in the settings.
        parameters: Number of its parameters.
        bytes: Bytes of those that the backbone does not share.
        cached: Whether it is in memory only while a cache is filled, before training.
    """

    name: str
    parameters: int
    bytes: int
    cached: bool


@dataclass(frozen=True)
class Report:
    """The facts about the settings of a run.

    Attributes:
        source: Source of the backbone: hub, local or embedded.
        name: Its name.
        dtype: Dtype of its weights, or their format if they are quantised.
        total: Number of its parameters.
        strategy: Name of the strategy.
        optimizer: Name of the optimizer.
        budget: How the strategy meets its budget, if there is one.
        layers: The adapted layers; None without an adapter.
        trainable: Number of trainable parameters, without those of a new head.
        head: Number of parameters of a new head, which every strategy trains; 0 without one.
        adapter_bytes: Bytes of the adapter's file.
        memory: The memory of a training step; None if it was not asked for.
        disk: The disk space of the run; None if it was not asked for, or if the optimizer's state is not known.
        teacher: The size of the teacher; None without one.
    """

    source: str
    name: str
    dtype: str
    total: int
    strategy: str
    optimizer: str
    budget: BudgetFit | None
    layers: list[AdaptedLayer] | None
    trainable: int
    head: int
    adapter_bytes: int
    memory: MemoryEstimate | None
    disk: DiskEstimate | None
    teacher: TeacherSize | None = None


def report(
    module: FineTuneModule, data: TaskDataModule, trainer: L.Trainer, lengths: tuple[int, int], memory: bool
) -> Report:
    """Collect the facts; neither weights nor rows are read.

    Args:
        module: The model.
        data: The data.
        trainer: The trainer.
        lengths: Tokens of a row, and its targets.
        memory: Whether to estimate memory and disk.

    Raises:
        UserError: The strategy does not fit the backbone.
    """
    budget = module.resolve_budget()
    config, location = module.backbone_config, module.location
    skeleton = load_skeleton(config, location)
    total = sum(parameter.numel() for parameter in skeleton.parameters())
    head = sum(p.numel() for name in new_head(skeleton) for p in skeleton.get_submodule(name).parameters())
    network = meta_model(module, skeleton)
    layers = adapted_layers(network) if isinstance(network, PeftModel) else None
    counts = sizes(network)
    teacher = open_teacher(module, data.encoding.max_length)
    estimate = None
    if memory:
        estimate = estimate_memory(module, step_shape(module, data, trainer, lengths), network, teacher)
    disk = None
    if estimate is not None:
        known = next((step for step in estimate.steps.values() if isinstance(step, StepMemory)), None)
        if known is not None:
            disk = estimate_disk(network, counts["adapter_bytes"], known.peak[OPTIMIZER])  # without temporary tensors
    return Report(
        source=location.source,
        name=location.name,
        dtype=config.quantization or config.dtype,
        total=total,
        strategy=strategy_name(module.adapter_config, module.frozen_backbone, module.prompt_config),
        optimizer=optimizer_name(module),
        budget=budget,
        layers=layers,
        trainable=counts["trainable"],
        head=head,
        adapter_bytes=counts["adapter_bytes"],
        memory=estimate,
        disk=disk,
        teacher=None if teacher is None else _teacher(module, teacher),
    )


def _teacher(module: FineTuneModule, teacher: Teacher) -> TeacherSize:
    parameters = list(teacher.skeleton().parameters())
    size = 0 if teacher.shares_weights_of(module) else sum(p.numel() * p.element_size() for p in parameters)
    cached = teacher.settings.cache_folder is not None
    return TeacherSize(teacher.settings.teacher, sum(p.numel() for p in parameters), size, cached)


def step_shape(module: FineTuneModule, data: TaskDataModule, trainer: L.Trainer, lengths: tuple[int, int]) -> StepShape:
    """Return the shape of the batch of a process, from the settings; a new head has one target in each row."""
    mixed, accumulates = MIXED.get(str(trainer.precision)), int(trainer.accumulate_grad_batches) > 1
    head = module.objective.head
    length, targets = lengths if not head.is_new else (lengths[0], 1)
    pixels = pixels_of(module.processor) if head.reads_images else None
    shape = StepShape(data.batch_size, length, targets, data.packing, accumulates, mixed)
    return replace(shape, outputs=len(head.names), pixels=pixels)


def optimizer_name(module: FineTuneModule) -> str:
    """Return the name of the class of the optimizer."""
    return type(make_optimizer(module.optimizer_factory, [torch.nn.Parameter(torch.zeros(1, 1))])).__name__

"""One training step on fake tensors, whose live bytes are the memory of a real step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F

from smoa_lightning.adapters import without_adapter
from smoa_lightning.adapters.smoa.layer import SmoaLinear
from smoa_lightning.adapters.smoa.scratch import separate_scratch
from smoa_lightning.evaluation.labels import head_outputs
from smoa_lightning.evaluation.scoring import logits_at
from smoa_lightning.objectives import Objective
from smoa_lightning.objectives.distillation import DistillationConfig, distilled_loss
from smoa_lightning.objectives.top_distributions import TopDistributions
from smoa_lightning.training.memory.fake_model import DEVICE
from smoa_lightning.training.memory.live_bytes import ACTIVATIONS, GRADIENTS, KINDS, OPTIMIZER, LiveBytes
from smoa_lightning.training.optimizer import Factory, make_optimizer

StepLoss = Callable[[nn.Module, dict[str, Any], tuple[Tensor, Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class StepShape:
    """The shape of the batch of a step.

    Attributes:
        rows: R, rows of a micro-batch (of one process).
        length: T, tokens of a row, with padding.
        targets: Tokens of a row that the loss reads, at most T - 1; 1 with a new head.
        packed: Whether the rows are packed, so that positions separate them and there is no attention mask.
        accumulates: Whether an optimizer step has several micro-batches, so that gradients exist in the next forward.
        autocast: The dtype of a mixed precision; None without.
        outputs: Outputs of a new head; 0 for a language model.
        pixels: Channels, height and width of an image, for a model that reads images; None for tokens.
    """

    rows: int
    length: int
    targets: int
    packed: bool = False
    accumulates: bool = False
    autocast: torch.dtype | None = None
    outputs: int = 0
    pixels: tuple[int, int, int] | None = None

    def __str__(self) -> str:
        """Return the shape in words.

        >>> str(StepShape(8, 128, 10)), str(StepShape(8, 128, 1, outputs=2))
        ('8 rows of 128 tokens with 10 targets each', '8 rows of 128 tokens with a label each')
        >>> str(StepShape(8, 1, 1, outputs=2, pixels=(3, 224, 224)))
        '8 images of 3 x 224 x 224 with a label each'
        """
        if self.pixels is not None:
            return f"{self.rows} images of {' x '.join(map(str, self.pixels))} with a label each"
        each = "a label" if self.outputs else f"{self.targets} targets"
        return f"{self.rows} rows of {self.length} tokens with {each} each"


@dataclass(frozen=True)
class StepMemory:
    """The bytes of a step.

    Attributes:
        largest: Kind (weights, gradients, optimizer, activations, logits) -> its largest bytes.
        peak: Kind -> its bytes when the sum was largest. The gradients of adapters do not exist yet when the
            activations are largest, so the sum of ``largest`` is larger.
    """

    largest: Mapping[str, int]
    peak: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(self.peak.values())


def cross_entropy(network: nn.Module, inputs: dict[str, Any], places: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
    """Return the loss of a language model without a teacher: the summed cross-entropy of the targets in float32."""
    return F.cross_entropy(logits_at(network, inputs, places).float(), labels, reduction="sum")


@dataclass(frozen=True)
class TaughtStep:
    """The loss of a language model with a teacher, see ``objectives.distillation``.

    Attributes:
        teacher: The teacher, a model of fake tensors; None if its frozen weights are those of the student, or if a
            cache has its distributions.
        settings: The settings of the distillation.
    """

    teacher: nn.Module | None
    settings: DistillationConfig

    def __call__(
        self, network: nn.Module, inputs: dict[str, Any], places: tuple[Tensor, Tensor], labels: Tensor
    ) -> Tensor:
        """Return the loss, after the forward of the teacher or with the distributions of its cache."""
        if self.settings.cache_folder is not None:
            return _with_cache(logits_at(network, inputs, places), labels, self.settings)
        own = without_adapter(network) if self.teacher is None else contextlib.nullcontext(self.teacher)
        with torch.no_grad(), own as teacher:
            wanted = logits_at(teacher, inputs, places)
        return distilled_loss(logits_at(network, inputs, places), wanted, labels, self.settings).loss


@dataclass(frozen=True)
class HeadStep:
    """The loss of a model with a new head, with a teacher or without.

    Attributes:
        objective: The objective of the run.
        settings: The settings of the distillation; None without a teacher.
        teacher: The teacher, a model of fake tensors; None if its frozen weights are those of the student.
    """

    objective: Objective
    settings: DistillationConfig | None = None
    teacher: nn.Module | None = None

    def __call__(
        self, network: nn.Module, inputs: dict[str, Any], places: tuple[Tensor, Tensor], labels: Tensor
    ) -> Tensor:
        """Return the summed loss of the rows."""
        batch, teacher = inputs | {"labels": labels.double()}, self.teacher or network
        if self.settings is None:
            return self.objective.loss(network, batch)[0]
        if self.objective.head.kind == "regression":
            assert self.objective.distilled is not None
            return self.objective.distilled(network, teacher, batch, self.settings).loss
        if self.settings.cache_folder is not None:
            return _with_cache(head_outputs(network, inputs), labels, self.settings)
        with torch.no_grad():
            wanted = head_outputs(teacher, inputs)
        return distilled_loss(head_outputs(network, inputs), wanted, labels, self.settings).loss


def _with_cache(logits: Tensor, labels: Tensor, settings: DistillationConfig) -> Tensor:
    """Return the loss with distributions of a cache, which have the shape of real ones."""
    top = torch.zeros(len(logits), min(settings.top, logits.shape[-1]), device=logits.device)
    return distilled_loss(logits, TopDistributions(top.int(), top, top[:, 0], logits.shape[-1]), labels, settings).loss


def trace_step(
    network: nn.Module,
    optimizer: Factory,
    shape: StepShape,
    mode: FakeTensorMode,
    loss: StepLoss = cross_entropy,
    further: Iterable[Tensor] = (),
) -> StepMemory:
    """Run a training step after the first one (so that the optimizer has its state) and count its live bytes.

    The steps are those of ``FineTuneModule`` under Lightning: forward, release of the old gradients, backward,
    optimizer. Only the logits of the targets are computed.

    Args:
        network: A model of fake tensors of this mode.
        optimizer: Trainable parameters -> their optimizer.
        shape: The shape of the batch.
        mode: The mode that made the model.
        loss: Model, inputs, places and labels -> the loss.
        further: Weights that exist in addition to those of the model.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    columns = shape.outputs
    if not columns:
        head: Any = network.get_output_embeddings()  # type: ignore[operator]
        columns = int(head.weight.shape[0])
    with separate_scratch(), LiveBytes((shape.rows * shape.targets, columns)) as live:
        live.add([*network.parameters(), *network.buffers(), *further])
        _build_plans(network, mode)
        live.phase = GRADIENTS
        with mode:
            for parameter in trained:
                parameter.grad = torch.empty_like(parameter)
        live.phase = OPTIMIZER
        if trained:
            stepped = make_optimizer(optimizer, trained)
            stepped.step(lambda: 0.0)
        live.phase = ACTIVATIONS
        _forward_backward(network, trained, shape, live, mode, loss)
        memory = StepMemory({kind: live.largest[kind] for kind in KINDS}, {kind: live.peak[kind] for kind in KINDS})
        for parameter in trained:
            parameter.grad = None
    return memory


def _build_plans(network: nn.Module, mode: FakeTensorMode) -> None:
    """Let SMoA's layers make what they derive from frozen state and keep, such as the masks of ``spectral_energy``."""
    active = network.active_adapters if isinstance(network, PeftModel) else []
    layers = [module for module in network.modules() if isinstance(module, SmoaLinear)]
    with mode:
        for layer in layers:
            for adapter in active:
                layer.plan(adapter)


def _forward_backward(
    network: nn.Module,
    trained: list[nn.Parameter],
    shape: StepShape,
    live: LiveBytes,
    mode: FakeTensorMode,
    loss_of: StepLoss,
) -> None:
    hooks = [parameter.register_post_accumulate_grad_hook(live.becomes_gradient) for parameter in trained]
    mixed = torch.autocast(DEVICE, shape.autocast) if shape.autocast is not None else contextlib.nullcontext()
    with mode, torch.set_grad_enabled(bool(trained)):
        inputs, places, labels = _batch(shape)
        with mixed:
            loss = loss_of(network, inputs, places, labels)
        if trained:
            for parameter in [] if shape.accumulates else trained:
                parameter.grad = None
            loss.backward()
    for hook in hooks:
        hook.remove()


def _batch(shape: StepShape) -> tuple[dict[str, Any], tuple[Tensor, Tensor], Tensor]:
    """Return the inputs of the model, the places of the targets, and their labels."""
    ids = torch.zeros(shape.rows, shape.length, dtype=torch.long, device=DEVICE)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if shape.pixels is not None:
        inputs = {"pixel_values": torch.zeros(shape.rows, *shape.pixels, device=DEVICE)}
    elif shape.packed:
        inputs = {"input_ids": ids, "position_ids": torch.zeros_like(ids), "use_cache": False}
    labels = torch.zeros(shape.rows * shape.targets, dtype=torch.long, device=DEVICE)
    return inputs, (torch.zeros_like(labels), torch.zeros_like(labels)), labels

r"""A LoRA from any update of weights: the best approximation of rank R in each layer.

With D = W' - W = U S V^T, the matrix of rank R with the smallest Frobenius distance to D is D V_R V_R^T = U_R U_R^T D
(Eckart and Young, 1936). So B = D V_R and A = V_R^T, or B = U_R and A = U_R^T D for a layer with fewer rows than
columns. The columns of U or V are eigenvectors of the smaller Gram matrix, in float64. The error is the root of the sum
of the other squared singular values.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from smoa_lightning.backbones.heads import in_new_head
from smoa_lightning.common.console import no_bar
from smoa_lightning.common.errors import UserError

TOLERANCE = 0.01  # largest relative error of the update at the default rank
ROUNDING = 1e-3  # largest relative error that rounding explains; layers that are trained in full have a larger one
SHOWN_RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Update:
    """The update D of one layer, of shape (d_out, d_in), as its singular values and its smaller singular basis.

    Attributes:
        values: Singular values, (d,) with d = min(d_out, d_in), descending, float64.
        basis: U if d_out < d_in, else V: (d, d), float32, with its columns in the order of the values.
    """

    values: Tensor
    basis: Tensor

    @property
    def smaller_side(self) -> int:
        """The largest rank that the layer allows."""
        return len(self.values)

    def factors(self, delta: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Return A (rank, d_in) and B (d_out, rank) of the best approximation of D, float64; zeros fill them up.

        Args:
            delta: D, (d_out, d_in).
            rank: The rank; a rank above d adds zeros.
        """
        basis = self.basis[:, :rank].double()
        a, b = delta.new_zeros(rank, delta.shape[1]), delta.new_zeros(delta.shape[0], rank)
        wide = delta.shape[0] < delta.shape[1]
        a[: basis.shape[1]] = basis.t() @ delta if wide else basis.t()
        b[:, : basis.shape[1]] = basis if wide else delta @ basis
        return a, b


def decompose(delta: Tensor) -> Update:
    """Return the singular values and the smaller singular basis of D."""
    gram = delta @ delta.t() if delta.shape[0] < delta.shape[1] else delta.t() @ delta
    squares, basis = torch.linalg.eigh(gram)
    return Update(squares.flip(0).clamp(min=0).sqrt(), basis.flip(1).float())


@dataclass(frozen=True)
class Updates:
    """The updates of a model.

    Attributes:
        layers: Name -> update, for each linear layer that changed.
        left_out: Names of other changed parameters: biases, norms, embeddings. A LoRA does not hold them.
    """

    layers: dict[str, Update]
    left_out: list[str]

    @property
    def largest_rank(self) -> int:
        """The largest smaller side of a layer."""
        return max(update.smaller_side for update in self.layers.values())

    def error(self, rank: int) -> float:
        """Return the smallest relative error of the update at a rank: Frobenius, over all layers."""
        rest = sum(float(update.values[rank:].square().sum()) for update in self.layers.values())
        total = sum(float(update.values.square().sum()) for update in self.layers.values())
        return math.sqrt(rest / total)


@dataclass(frozen=True)
class WrittenError:
    """The relative Frobenius error of a written LoRA, with the rounding of its number format.

    Attributes:
        overall: Over all layers.
        worst_layer: Name of the layer with the largest error.
        worst: The error of this layer.
    """

    overall: float
    worst_layer: str
    worst: float


@torch.no_grad()
def find_updates(backbone: PreTrainedModel, merged: PreTrainedModel) -> Updates:
    """Decompose W' - W of each linear layer but those of a new head, which has no W before training.

    Args:
        backbone: The backbone.
        merged: The same with the update in its weights, float32.

    Raises:
        UserError: An update has a value that is not finite.
    """
    layers, seen = {}, set()
    has_outputs = merged.get_output_embeddings() is not None  # models of images have neither
    shared = getattr(merged.get_input_embeddings(), "weight", None) if has_outputs else None
    linear = [(n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    linear = [(name, module) for name, module in linear if not in_new_head(backbone, name)]
    for name, module in tqdm(linear, desc="decompose", unit="layer", leave=False, delay=2, disable=no_bar()):
        layer: Any = merged.get_submodule(name)
        if layer.weight is shared:  # a LoRA of the output embedding would leave the input embedding as it was
            continue
        seen.add(f"{name}.weight")
        delta = difference(module, layer)
        if not torch.isfinite(delta).all():
            raise UserError(f"the update of {name} has a value that is not finite")
        if bool(delta.any()):
            layers[name] = decompose(delta)
    own = dict(backbone.named_parameters(remove_duplicate=False))
    others = [(name, parameter) for name, parameter in merged.named_parameters() if name not in seen]
    changed = [name for name, p in others if name not in own or not torch.equal(p, own[name].to(p))]
    return Updates(layers, changed)


def difference(before: Any, after: Any) -> Tensor:
    """Return D = W' - W of a linear layer, (d_out, d_in), float64."""
    delta: Tensor = after.weight.detach().double() - before.weight.detach().double()
    return delta.t().contiguous() if isinstance(before, Conv1D) else delta


def choose_rank(updates: Updates, bound: int | None, wanted: int | None) -> tuple[int, str]:
    """Return the rank of the LoRA, and why.

    Args:
        updates: The decomposed updates.
        bound: Largest rank of an update that the method allows; None if it has no bound.
        wanted: The rank that the user asks for.

    Raises:
        UserError: The wanted rank is larger than every layer.
    """
    limit = updates.largest_rank
    if wanted is not None:
        if wanted > limit:
            raise UserError(
                f"export: --rank is {wanted}, but no adapted layer has a rank above {limit}: use at most {limit}"
            )
        return wanted, "as asked for"
    smallest = min(update.smaller_side for update in updates.layers.values())
    if bound is not None and 0 < bound < smallest and updates.error(bound) <= ROUNDING:
        return bound, "the largest rank that the method allows, so the LoRA is exact"
    low, high = 1, limit
    while low < high:  # the error falls with the rank
        middle = (low + high) // 2
        low, high = (low, middle) if updates.error(middle) <= TOLERANCE else (middle + 1, high)
    return low, f"the smallest rank with an error of at most {TOLERANCE:.0%}"


@torch.no_grad()
def write_lora(
    backbone: PreTrainedModel, merged: PreTrainedModel, updates: Updates, rank: int, dtype: torch.dtype, folder: Path
) -> WrittenError:
    """Write the LoRA of a rank as a peft folder, and return its error.

    All layers have the same rank, since loaders outside of peft read a single one. A smaller layer gets zeros.
    """
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,  # a scale of 1
        target_modules=_targets(backbone, list(updates.layers)),
        fan_in_fan_out=all(isinstance(backbone.get_submodule(name), Conv1D) for name in updates.layers),
        task_type=TaskType.CAUSAL_LM,
    )
    squares: dict[str, tuple[float, float]] = {}  # layer -> squared norms of its error and of its update
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a tied output embedding, and of Conv1D
        model = get_peft_model(backbone, config, autocast_adapter_dtype=False)
        for name, update in updates.layers.items():
            layer: Any = model.get_base_model().get_submodule(name)
            delta = difference(layer.get_base_layer(), merged.get_submodule(name))
            a, b = (factor.to(dtype) for factor in update.factors(delta, rank))
            layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data = a, b
            squares[name] = float((b.double() @ a.double() - delta).square().sum()), float(delta.square().sum())
        model.save_pretrained(str(folder), save_embedding_layers=False)
    overall = math.sqrt(sum(error for error, _ in squares.values()) / sum(total for _, total in squares.values()))
    errors = {name: math.sqrt(error / total) for name, (error, total) in squares.items()}
    worst = max(errors, key=errors.__getitem__)
    return WrittenError(overall, worst, errors[worst])


def load_lora(backbone: PreTrainedModel, folder: Path) -> PeftModel:
    """Load the written LoRA with peft's own loader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(backbone, str(folder)).eval()


def errors_by_rank(updates: Updates) -> dict[int, float]:
    """Return the relative error at some ranks."""
    ranks = [rank for rank in SHOWN_RANKS if rank < updates.largest_rank]
    return {rank: updates.error(rank) for rank in [*ranks, updates.largest_rank]}


def _targets(model: nn.Module, names: list[str]) -> list[str]:
    """Return the last parts of the names if they match these layers only, else the full names."""
    short = sorted({name.rpartition(".")[2] for name in names})
    matched = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in short}
    return short if matched == set(names) else names

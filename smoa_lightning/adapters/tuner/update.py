"""A linear layer with additive updates of its weight: forward, merge and unmerge for every method."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import Tensor, nn

from smoa_lightning.adapters.tuner.frozen import linear_shape, stored_weight
from smoa_lightning.adapters.tuner.layer import BASE, AdapterLayer
from smoa_lightning.adapters.tuner.offloaded import load_tensor, offload_hook
from smoa_lightning.adapters.tuner.other_layers import (
    as_matrix,
    as_stored,
    frozen_weight,
    product_with_update,
    update_shape,
)
from smoa_lightning.backbones.quantization import prepare_quantized, quantization
from smoa_lightning.common.errors import UserError


class UpdateLayer(AdapterLayer):
    r"""``y = x (W + sum over active adapters of D)^T + b`` around an ``nn.Linear`` or a GPT-2 style ``Conv1D``.

    Subclasses with ``other_layers`` also adapt ``nn.Embedding`` and ``nn.Conv2d`` (see ``tuner.other_layers``), whose
    products form D. Dropout does not apply to token ids.

    A method supplies :meth:`product` (x D^T, without forming D if that is cheaper), :meth:`dense_update` (D) and
    :meth:`rank_bound`.

    Args:
        base_layer: The frozen layer.
        name: Full name of the layer in its model.
    """

    other_layers = False
    supplied = ("initial_parameters", "product", "dense_update", "rank_bound")

    def __init__(self, base_layer: nn.Module, name: str = "") -> None:
        super().__init__(base_layer, name)
        self.is_linear = linear_shape(base_layer) is not None
        shape = update_shape(base_layer) if self.other_layers else linear_shape(base_layer)
        if shape is None:
            raise UserError(
                f"layer {name} cannot be adapted: it is {type(base_layer).__name__}, but must be nn.Linear or Conv1D "
                "with floating-point weights."
            )
        self.out_features, self.in_features = shape
        prepare_quantized(base_layer)
        self._weight_before_merge: Tensor | None = None  # on the CPU, as stored
        self.shares_weight = False  # with another module of the model
        self._shared_weight: tuple[nn.Parameter, ...] = ()  # while the layer is merged; a tuple hides it from torch

    # -------------------------------------------------------------------------------------- supplied by the method

    def product(self, x: Tensor, adapter: str) -> Tensor:
        """Return ``x D^T`` of shape (..., out_features) for x of shape (..., in_features), scaling included."""
        raise NotImplementedError

    def dense_update(self, adapter: str) -> Tensor:
        """Return the additive update D of shape (out_features, in_features), scaling included."""
        raise NotImplementedError

    def rank_bound(self, adapter: str) -> int:
        """Return an upper bound of the rank of D; needs no weights."""
        raise NotImplementedError

    def checked_update(self, adapter: str) -> Tensor:
        """Return :meth:`dense_update`.

        Raises:
            UserError: Its shape is not that of the weight.
        """
        update = self.dense_update(adapter)
        if update.shape != (self.out_features, self.in_features):
            hint = "; it may be transposed" if update.shape == (self.in_features, self.out_features) else ""
            raise UserError(
                f"{type(self).__name__}.dense_update returns shape {tuple(update.shape)} for layer {self.name}, but "
                f"must return (out_features, in_features) = {(self.out_features, self.in_features)}{hint}"
            )
        return update

    # ----------------------------------------------------------------------------------------------------- weights

    def _base(self) -> Any:
        return self.get_base_layer()

    def _stored_weight(self) -> Tensor:
        """Return the unmerged weight, as the base layer stores it; a weight in 8 or 4 bits is dequantised."""
        if self._weight_before_merge is not None:
            weight, hook = self._base().weight, offload_hook(self._base())
            device = weight.device if hook is None else hook.execution_device
            return self._weight_before_merge.to(device=device, dtype=weight.dtype)
        return stored_weight(self._base())

    def _bias(self) -> Tensor | None:
        return load_tensor(self._base(), "bias")

    def weight_is_absent(self) -> bool:
        """Whether the layer has no weight at all, on the meta device."""
        return self._base().weight.is_meta and offload_hook(self._base()) is None

    def unmerged_weight(self) -> Tensor:
        """Return W of shape (out_features, in_features) without merged adapters, a view of the stored weight."""
        if self._weight_before_merge is None:
            return frozen_weight(self._base())
        return as_matrix(self._base(), self._stored_weight())

    def merged_weight(self, adapters: list[str]) -> Tensor:
        """Return ``W + sum D`` of shape (out_features, in_features) in the dtype of W, rounded once."""
        weight = self.unmerged_weight().detach()
        total = weight.to(torch.promote_types(weight.dtype, torch.float32))
        for name in adapters:
            total = total + self.checked_update(name).detach().to(total.dtype)
        return total.to(weight.dtype)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return the update as the layer stores its weight, as peft expects: D, or D^T for a Conv1D."""
        return as_stored(self._base(), self.checked_update(adapter))

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Tell peft that ``get_delta_weight`` is the additive update of a linear layer."""
        return self.is_linear

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the updates of adapters to the stored weight, and keep a copy of it on the CPU for :meth:`unmerge`.

        While it is merged, a layer that shares its weight with another module has a weight of its own.

        Args:
            safe_merge: Refuse a merged weight that is not finite.
            adapter_names: Names of the adapters; absent means the active adapters. Merged adapters are skipped.

        Raises:
            ValueError: With ``safe_merge``, a value of the merged weight is not finite; the weight is unchanged.
            UserError: The weight is stored in 8 or 4 bits, or accelerate has moved the adapters away.
        """
        kind = quantization(self._base())
        if kind is not None:
            raise UserError(
                f"layer {self.name} stores its weight in {kind}, and rounding the merged weight to {kind} would lose "
                "most of the update: call dequantize() on the backbone, load the adapter onto the result, and merge it."
            )
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.configs]
        if not names:
            return
        self.require_loaded()
        stored: Tensor = self._base().weight
        clean = self._stored_weight().data
        with torch.no_grad():
            total = self.merged_weight([*self.merged_adapters, *names])
        if safe_merge and not torch.isfinite(total).all():
            raise ValueError(f"merging {', '.join(names)} into {self.name} gives values that are not finite.")
        if self._weight_before_merge is None:
            self._weight_before_merge = clean.to("cpu", copy=True)
            if self.shares_weight:
                self._shared_weight = (self._base().weight,)
                stored = self._base().weight = nn.Parameter(clean.clone(), stored.requires_grad)
        stored.data.copy_(as_stored(self._base(), total))
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        """Put the stored weight back, bit for bit, and share it again if it was shared."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        if self._shared_weight:
            (self._base().weight,) = self._shared_weight
        else:
            self._base().weight.data.copy_(self._stored_weight())
        self._weight_before_merge, self._shared_weight = None, ()
        self.merged_adapters.clear()

    # ----------------------------------------------------------------------------------------------------- forward

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the layer with its active adapters to x of shape (..., in_features)."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.adapters_of_rows is not None and not self.disable_adapters:
            return self._mixed_forward(x, *args, **kwargs)
        active = self.own_adapters()
        if self.disable_adapters or self.merged or not active:
            y: Tensor = self.base_layer(x, *args, **kwargs)
            return y
        self.require_loaded()
        return self.adapted_forward(x, active, *args, **kwargs)

    def _mixed_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply to every row its own adapter."""
        result: Tensor | None = None
        for name, rows in self.rows_by_adapter(len(x)).items():
            part = x[rows]
            y = self.base_layer(part, *args, **kwargs) if name == BASE else self.adapted_forward(part, [name])
            result = y.new_empty(len(x), *y.shape[1:]) if result is None else result
            result[rows] = y
        return x.new_empty(*x.shape[:-1], self.out_features) if result is None else result

    def adapted_forward(self, x: Tensor, active: list[str], *args: Any, **kwargs: Any) -> Tensor:
        """Return the frozen layer's output plus the product of every active adapter."""
        result: Tensor = self.base_layer(x, *args, **kwargs)
        for name in active:
            result = result + self._added(x, name, result.dtype).to(result.dtype)
        return result

    def _added(self, x: Tensor, adapter: str, dtype: torch.dtype) -> Tensor:
        """Return the product of one adapter, computed in the layer's dtype under autocast too."""
        inputs = self.dropouts[adapter](x.to(dtype)) if x.is_floating_point() else x  # token ids stay as they are
        if self.is_linear:
            return self.product(inputs, adapter)
        return product_with_update(self._base(), self.checked_update(adapter).to(dtype), inputs)

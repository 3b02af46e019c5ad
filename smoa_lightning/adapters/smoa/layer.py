"""A linear layer with SMoA adapters, after peft's contract for tuner layers."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters.smoa import subspaces
from smoa_lightning.adapters.smoa.config import BLOCK_PARTITIONS, SMoAConfig
from smoa_lightning.adapters.smoa.fingerprint import fingerprint, fingerprint_text, fingerprints_match
from smoa_lightning.adapters.smoa.functional import Plan, delta_weight, merged_weight, smoa_linear, split_factors
from smoa_lightning.adapters.smoa.state import (
    FROZEN_STATE,
    blank_state,
    check_fit,
    check_permutation,
    initial_factors,
    layer_seed,
    linear_shape,
)
from smoa_lightning.errors import UserError


class SmoaLinear(nn.Module, BaseTunerLayer):
    r"""``y = x (W + sum over active adapters of s D)^T + b`` around an ``nn.Linear`` or a GPT-2 style ``Conv1D``.

    Parameters ``smoa_A`` and ``smoa_B`` hold the factors of all subspaces (see ``functional.split_factors``) in
    float32, or float64 for a float64 layer. Buffers hold the frozen state of an adapter, and are saved with it: index
    orders of block partitions, cut points of ``spectral_energy``, the seed of the noise and the fingerprint of the
    unmerged base weight. They are filled when first needed, unless a file brings them: loading computes no spectrum.
    Only ``spectral_energy`` modulated by the weight decomposes W once more in every process, at the first forward,
    since its dense spectral parts are too large to save; its cut points are those of the file.

    Args:
        base_layer: The frozen layer.
        name: Full name of the layer in its model, used in messages and as part of the seeds.
    """

    adapter_layer_names = ("smoa_A", "smoa_B")
    other_param_names = ("smoa_dropout", *FROZEN_STATE, "smoa_config")
    smoa_row_order: BufferDict
    smoa_col_order: BufferDict
    smoa_cut_points: BufferDict
    smoa_noise_seed: BufferDict
    smoa_fingerprint: BufferDict

    def __init__(self, base_layer: nn.Module, name: str = "") -> None:
        super().__init__()
        shape = linear_shape(base_layer)
        if shape is None:
            raise UserError(
                f"SMoA cannot adapt layer {name}: it is {type(base_layer).__name__}, but must be nn.Linear or Conv1D "
                "with floating-point weights."
            )
        self.base_layer = base_layer
        self.name = name
        self.out_features, self.in_features = shape
        self.smoa_A = nn.ParameterDict()
        self.smoa_B = nn.ParameterDict()
        self.smoa_dropout = nn.ModuleDict()
        for state in FROZEN_STATE:
            setattr(self, state, BufferDict(persistent=True))
        self.smoa_config: dict[str, SMoAConfig] = {}
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._weight_before_merge: Tensor | None = None  # on the CPU, as stored
        self._prepared: set[str] = set()
        self._plans: dict[str, tuple[tuple[Any, ...], Plan]] = {}
        self.register_load_state_dict_post_hook(_after_loading)

    # ------------------------------------------------------------------------------------------------ set-up

    def update_layer(self, adapter_name: str, config: SMoAConfig) -> None:
        """Add an adapter: A Kaiming-uniform(a = sqrt 5) in every block, B zero, frozen state still unset."""
        check_fit(config, self.name, self.out_features, self.in_features)
        weight = self._base().weight
        dtype = torch.promote_types(torch.float32, weight.dtype)
        A, B = initial_factors(config, self.out_features, self.in_features, dtype)
        self.smoa_A[adapter_name] = nn.Parameter(A)
        self.smoa_B[adapter_name] = nn.Parameter(B)
        self.smoa_dropout[adapter_name] = nn.Dropout(config.dropout) if config.dropout > 0 else nn.Identity()
        self.smoa_config[adapter_name] = config
        state = blank_state(config, self.out_features, self.in_features, layer_seed(config.seed, self.name))
        for key, values in state.items():
            getattr(self, key)[adapter_name] = values
        self._forget(adapter_name)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move an adapter to the base layer's device. Unlike peft's own, keeps its dtype: bfloat16 would round A, B."""
        device = device or self._base().weight.device
        self._plans.pop(adapter_name, None)
        for name in (*self.adapter_layer_names, "smoa_dropout", *FROZEN_STATE):
            container = getattr(self, name)
            if adapter_name not in container or device.type == "meta":
                continue
            item = container[adapter_name]
            if not (isinstance(item, Tensor) and item.is_meta):
                container[adapter_name] = item.to(device)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._plans.clear()  # they hold tensors of the old device and dtype
        return super()._apply(fn, recurse)

    def _forget(self, adapter_name: str) -> None:
        self._prepared.discard(adapter_name)
        self._plans.pop(adapter_name, None)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter with everything derived from it."""
        super().delete_adapter(adapter_name)
        self._forget(adapter_name)

    # ------------------------------------------------------------------------------------------------ frozen state

    def _base(self) -> Any:
        return self.get_base_layer()

    def _stored_weight(self) -> Tensor:
        """The unmerged weight, as the base layer stores it."""
        weight: Tensor = self._base().weight
        if self._weight_before_merge is not None:
            return self._weight_before_merge.to(device=weight.device, dtype=weight.dtype)
        return weight

    def unmerged_weight(self) -> Tensor:
        """W of shape (out_features, in_features), a transposed view for Conv1D; without any merged adapter."""
        weight = self._stored_weight()
        return weight.t() if isinstance(self._base(), Conv1D) else weight

    def prepare(self, adapter_name: str) -> None:
        """Fill what is unset of an adapter's frozen state from the unmerged weight, and check the fingerprint.

        Does nothing on the meta device, or where this was done before.

        Raises:
            UserError: The adapter was made for another base weight; the message shows both fingerprints.
        """
        weight = self.unmerged_weight()
        if adapter_name in self._prepared or weight.is_meta or adapter_name not in self.smoa_A:
            return
        with torch.no_grad(), torch.inference_mode(False):
            self._check_fingerprint(adapter_name)
            self._fill_state(adapter_name, weight)
        self._prepared.add(adapter_name)

    def _check_fingerprint(self, adapter_name: str) -> None:
        saved = self.smoa_fingerprint[adapter_name]
        stored = self._stored_weight()
        if not saved.any():
            saved.copy_(fingerprint(stored))
        elif not fingerprints_match(saved, stored):
            raise UserError(
                f"adapter {adapter_name!r} does not belong to this backbone: at layer {self.name} it was made for a "
                f"base weight with fingerprint {fingerprint_text(saved)}, but here the base weight has fingerprint "
                f"{fingerprint_text(fingerprint(stored))}; load the backbone and revision that its "
                "adapter_config.json names."
            )

    def _fill_state(self, adapter_name: str, weight: Tensor) -> None:
        config = self.smoa_config[adapter_name]
        if adapter_name in self.smoa_row_order:
            rows, cols = self.smoa_row_order[adapter_name], self.smoa_col_order[adapter_name]
            if (rows == subspaces.UNSET).any() or (cols == subspaces.UNSET).any():
                seed = layer_seed(config.seed, self.name)
                new_rows, new_cols = subspaces.block_orders(weight, config.partition, config.num_subspaces, seed)
                rows.copy_(new_rows)
                cols.copy_(new_cols)
            check_permutation(rows, f"smoa_row_order of layer {self.name}")
            check_permutation(cols, f"smoa_col_order of layer {self.name}")
        if adapter_name in self.smoa_cut_points:
            cuts = self.smoa_cut_points[adapter_name]
            if (cuts == subspaces.UNSET).any():
                values = subspaces.singular_values(weight)
                cuts.copy_(subspaces.energy_cuts(values, config.num_subspaces, config.energy))

    def plan(self, adapter_name: str) -> Plan:
        """How the adapter's factors make its update; rebuilt whenever frozen state, device or dtype have changed."""
        self.prepare(adapter_name)
        weight: Tensor = self._base().weight
        state = [getattr(self, key)[adapter_name] for key in FROZEN_STATE if adapter_name in getattr(self, key)]
        key = (weight.device, weight.dtype, *((id(values), values._version) for values in state))
        known = self._plans.get(adapter_name)
        if known is None or known[0] != key:
            with torch.no_grad(), torch.inference_mode(False):
                known = key, self._build_plan(adapter_name)
            self._plans[adapter_name] = known
        return known[1]

    def _build_plan(self, adapter_name: str) -> Plan:
        config = self.smoa_config[adapter_name]
        weight = self.unmerged_weight()
        weighted = config.modulation == "weight"
        rows: tuple[Tensor, ...] = ()
        cols: tuple[Tensor, ...] = ()
        masks: tuple[Tensor, ...] = ()
        noise: tuple[Tensor, ...] = ()
        if adapter_name in self.smoa_row_order:
            count = config.num_subspaces
            orders = [self.smoa_row_order[adapter_name].long(), self.smoa_col_order[adapter_name].long()]
            rows, cols = (order.split(subspaces.near_equal_sizes(order.numel(), count)) for order in orders)
        elif adapter_name in self.smoa_cut_points and weighted:
            masks = tuple(subspaces.energy_masks(weight, self.smoa_cut_points[adapter_name]))
        if config.modulation == "random":
            seed = int(self.smoa_noise_seed[adapter_name])
            copies = config.num_subspaces if config.partition == "spectral_energy" else 1
            shape = (self.out_features, self.in_features)
            noise = tuple(
                subspaces.uniform_modulation(seed + index, shape, weight.dtype, weight.device)
                for index in range(copies)
            )
        return Plan(config.ranks, weighted, rows, cols, masks, noise)

    # ------------------------------------------------------------------------------------------------ updates

    def factors(self, adapter_name: str) -> list[tuple[Tensor, Tensor]]:
        """Views ``(A_k, B_k)`` of the trained factors of every subspace, of shapes (r_k, n_k) and (m_k, r_k)."""
        return split_factors(self.smoa_A[adapter_name], self.smoa_B[adapter_name], self.plan(adapter_name))

    def rank_bound(self, adapter_name: str) -> int:
        """Upper bound of the rank of the update; needs no weights.

        Modulation by weight or noise: min(|rows_k|, |cols_k|) summed over blocks, else min(d_out, d_in); without
        modulation the sum of ranks at most.
        """
        config = self.smoa_config[adapter_name]
        bound = min(self.out_features, self.in_features)
        if config.partition in BLOCK_PARTITIONS:
            sides = [subspaces.near_equal_sizes(n, config.num_subspaces) for n in (self.out_features, self.in_features)]
            bound = sum(min(pair) for pair in zip(*sides, strict=True))
        return min(bound, sum(config.ranks)) if config.modulation == "none" else bound

    def get_delta_weight(self, adapter: str) -> Tensor:
        """The additive update ``s D = W' - W`` of shape (out_features, in_features), in the dtype of A."""
        A, B = self.smoa_A[adapter], self.smoa_B[adapter]
        scaling = self.smoa_config[adapter].scaling
        weight = self.unmerged_weight()
        return delta_weight(A, B, weight, self.plan(adapter), scaling, torch.promote_types(A.dtype, weight.dtype))

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Tell peft that ``get_delta_weight`` is the additive update."""
        return True

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the updates of adapters to the stored weight, keeping a copy of it on the CPU for :meth:`unmerge`.

        Args:
            safe_merge: Refuse a merged weight that is not finite.
            adapter_names: Which adapters; the active ones if absent. Those already merged are skipped.

        Raises:
            ValueError: ``safe_merge`` and a value of the merged weight is not finite; nothing has changed then.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.smoa_A]
        if not names:
            return
        stored: Tensor = self._base().weight
        clean = self._stored_weight().data
        total = None
        for name in [*self.merged_adapters, *names]:
            total = self._add_update(name, total)
        assert total is not None
        if safe_merge and not torch.isfinite(total).all():
            raise ValueError(f"merging {', '.join(names)} into {self.name} gives values that are not finite.")
        if self._weight_before_merge is None:
            self._weight_before_merge = clean.to("cpu", copy=True)
        stored.data.copy_(total.t() if isinstance(self._base(), Conv1D) else total)
        self.merged_adapters.extend(names)

    def _add_update(self, adapter_name: str, total: Tensor | None) -> Tensor:
        weight = self.unmerged_weight().detach()
        A, B, plan = self.smoa_A[adapter_name], self.smoa_B[adapter_name], self.plan(adapter_name)
        scaling = self.smoa_config[adapter_name].scaling
        if total is None:
            return merged_weight(A, B, weight, plan, scaling)
        return total + delta_weight(A, B, weight, plan, scaling, weight.dtype)

    def unmerge(self) -> None:
        """Put the stored weight back, bit for bit."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        self._base().weight.data.copy_(self._stored_weight())
        self._weight_before_merge = None
        self.merged_adapters.clear()

    # ------------------------------------------------------------------------------------------------ forward

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the layer with its active adapters to x of shape (..., in_features)."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        active = [name for name in self.active_adapters if name in self.smoa_A]
        if self.disable_adapters or self.merged or not active:
            return self.base_layer(x, *args, **kwargs)
        base = self._base()
        if base.weight.requires_grad:
            raise UserError(
                f"the weight of layer {self.name} requires gradients, but SMoA adapts frozen weights only: train the "
                "layer through modules_to_save, or leave it out of target_modules."
            )
        plain = [name for name in active if not (self.training and self.smoa_config[name].dropout > 0)]
        result: Tensor | None = None
        if plain and not (base._forward_hooks or base._forward_pre_hooks):  # hooks must see their layer called
            result = self._update(x, plain[0], include_base=True)
            active.remove(plain[0])
        if result is None:
            result = self.base_layer(x, *args, **kwargs)
        for name in active:
            result = result + self._update(x, name, include_base=False)
        return result

    def _update(self, x: Tensor, adapter_name: str, include_base: bool) -> Tensor:
        weight, bias = self.unmerged_weight(), self._base().bias
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if not include_base:
            x, bias = self.smoa_dropout[adapter_name](x), None
        scaling = self.smoa_config[adapter_name].scaling
        A, B = self.smoa_A[adapter_name], self.smoa_B[adapter_name]
        return smoa_linear(x, weight, bias, A, B, self.plan(adapter_name), scaling, include_base)

    def __repr__(self) -> str:
        return "smoa." + super().__repr__()


def _after_loading(layer: SmoaLinear, _incompatible_keys: Any) -> None:
    """After any load_state_dict: derived state is stale, and a file's fingerprint must be that of the base weight.

    A fingerprint that is still unset stays so: the backbone may not be in place yet.
    """
    for name in layer.smoa_A:
        layer._forget(name)
        saved = layer.smoa_fingerprint[name]
        if not layer._stored_weight().is_meta and not saved.is_meta and saved.any():
            layer._check_fingerprint(name)

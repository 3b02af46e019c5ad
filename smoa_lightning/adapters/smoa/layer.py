"""A linear layer with SMoA adapters, following peft's contract for tuner layers."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners._buffer_dict import BufferDict
from torch import Tensor, nn

from smoa_lightning.adapters import gram
from smoa_lightning.adapters.smoa import subspaces
from smoa_lightning.adapters.smoa.config import BLOCK_PARTITIONS, SMoAConfig
from smoa_lightning.adapters.smoa.functional import delta_weight, merged_weight, smoa_linear
from smoa_lightning.adapters.smoa.spectra import SpectraOf
from smoa_lightning.adapters.smoa.state import (
    FROZEN_STATE,
    blank_state,
    check_permutation,
    initial_factors,
    layer_seed,
)
from smoa_lightning.adapters.smoa.terms import Grid, Plan, block_indices, split_factors
from smoa_lightning.adapters.smoa.weighted_sum import set_to_sum
from smoa_lightning.adapters.tuner import BoundLayer
from smoa_lightning.backbones.quantization import multiplies_by_weight, quantization
from smoa_lightning.common.errors import UserError


class SmoaLinear(BoundLayer):
    r"""``y = x (W + sum over active adapters of s D)^T + b`` around an ``nn.Linear`` or a GPT-2 style ``Conv1D``.

    Parameters ``smoa_A`` and ``smoa_B`` hold the factors of all subspaces (see ``terms.split_factors``) in
    float32, or float64 for a float64 layer. Buffers hold the frozen state of an adapter and are saved with it: index
    orders of block partitions, cut points of ``spectral_energy``, the seed of the noise and the fingerprint of W. A
    file supplies them, or else they are computed at first use, so that loading computes no spectrum. The exception is
    ``spectral_energy`` modulated by the weight. Its dense spectral parts are too large to save, so that W is decomposed
    again at the first forward of every process; the cut points still come from the file.

    Args:
        base_layer: The frozen layer.
        name: Full name of the layer in its model, used in messages and as part of the seeds.
    """

    adapter_layer_names = ("smoa_A", "smoa_B")
    frozen_state = FROZEN_STATE
    fingerprint_name = "smoa_fingerprint"
    smoa_A: nn.ParameterDict
    smoa_B: nn.ParameterDict
    smoa_row_order: BufferDict
    smoa_col_order: BufferDict
    smoa_cut_points: BufferDict
    smoa_noise_seed: BufferDict
    smoa_fingerprint: BufferDict
    configs: dict[str, SMoAConfig]  # type: ignore[assignment]

    def __init__(self, base_layer: nn.Module, name: str = "") -> None:
        super().__init__(base_layer, name)
        self._plans: dict[str, tuple[tuple[Any, ...], Plan]] = {}

    # ------------------------------------------------------------------------------------------------ set-up

    def initial_parameters(self, config: SMoAConfig) -> dict[str, Tensor]:
        """Return A, Kaiming-uniform(a = sqrt 5) in every block, and B, zero."""
        A, B = initial_factors(config, self.out_features, self.in_features, self.parameter_dtype())
        return {"smoa_A": A, "smoa_B": B}

    def initial_state(self, config: SMoAConfig) -> dict[str, Tensor]:
        """Return frozen state in which only the seed of the noise is set."""
        seed = layer_seed(config.seed, self.name)
        return {**super().initial_state(config), **blank_state(config, self.out_features, self.in_features, seed)}

    def update_layer(self, adapter_name: str, config: SMoAConfig) -> None:
        """Add an adapter that starts without effect."""
        config.check_layer(self.name, self.out_features, self.in_features)
        super().update_layer(adapter_name, config)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        self._plans.pop(adapter_name, None)
        super()._move_adapter_to_device_of_base_layer(adapter_name, device)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._plans.clear()  # plans hold tensors of the old device and dtype
        return super()._apply(fn, recurse)

    def forget(self, adapter_name: str) -> None:
        """Drop the plan of an adapter."""
        super().forget(adapter_name)
        self._plans.pop(adapter_name, None)

    # ------------------------------------------------------------------------------------------------ frozen state

    def fill_state(self, adapter_name: str, weight: Tensor) -> None:
        """Compute index orders and cut points that no file has supplied, and check all index orders."""
        config = self.configs[adapter_name]
        spectra = SpectraOf(weight, self.smoa_fingerprint[adapter_name])
        if adapter_name in self.smoa_row_order:
            rows, cols = self.smoa_row_order[adapter_name], self.smoa_col_order[adapter_name]
            if (rows == subspaces.UNSET).any() or (cols == subspaces.UNSET).any():
                seed, count = layer_seed(config.seed, self.name), config.num_subspaces
                new_rows, new_cols = subspaces.block_orders(weight, config.partition, count, seed, spectra.orders)
                rows.copy_(new_rows)
                cols.copy_(new_cols)
            check_permutation(rows, f"smoa_row_order of layer {self.name}")
            check_permutation(cols, f"smoa_col_order of layer {self.name}")
        if adapter_name in self.smoa_cut_points:
            cuts = self.smoa_cut_points[adapter_name]
            if (cuts == subspaces.UNSET).any():
                cuts.copy_(subspaces.energy_cuts(spectra.singular_values(), config.num_subspaces, config.energy))

    @property
    def prepared_by_one_thread(self) -> bool:
        """Small weights on the CPU are decomposed by one thread."""
        small = min(self.out_features, self.in_features) <= gram.SMALL
        return small and self._base().weight.device.type == "cpu"

    def plan(self, adapter_name: str) -> Plan:
        """Return how the adapter's factors form its update; rebuilt after a change of frozen state, device or dtype.

        In a compiled graph only a loaded state and a moved layer count as changes.
        """
        if torch.compiler.is_compiling():
            self._plan_for_graph(adapter_name)
            return self._plans[adapter_name][1]  # guarded: without this entry the graph is compiled again
        return self._current_plan(adapter_name)

    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
    def _plan_for_graph(self, adapter_name: str) -> bool:
        self._current_plan(adapter_name)
        return True

    def _current_plan(self, adapter_name: str) -> Plan:
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
        config = self.configs[adapter_name]
        weight = self.unmerged_weight()
        weighted = config.modulation == "weight"
        rows: tuple[Tensor, ...] = ()
        cols: tuple[Tensor, ...] = ()
        masks: tuple[Tensor, ...] = ()
        noise: tuple[Tensor, ...] = ()
        sides = [subspaces.near_equal_sizes(n, config.num_subspaces) for n in (self.out_features, self.in_features)]
        grid = left_index = right_index = None
        if adapter_name in self.smoa_row_order and config.num_subspaces > 1:
            orders = [self.smoa_row_order[adapter_name].long(), self.smoa_col_order[adapter_name].long()]
            rows, cols = (order.split(list(sizes)) for order, sizes in zip(orders, sides, strict=True))
            left_index, right_index = block_indices(rows, cols, config.ranks)
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
        if config.partition == "grid_blocks":
            grid, *indices = Grid.of(sides[0], sides[1], config.ranks)
            left_index, right_index = (index.to(weight.device) for index in indices)
        return Plan(config.ranks, weighted, rows, cols, left_index, right_index, masks, noise, grid)

    # ------------------------------------------------------------------------------------------------ updates

    def factors(self, adapter_name: str) -> list[tuple[Tensor, Tensor]]:
        """Return views ``(A_k, B_k)`` of the factors of every subspace, of shapes (r_k, n_k) and (m_k, r_k)."""
        return split_factors(self.smoa_A[adapter_name], self.smoa_B[adapter_name], self.plan(adapter_name))

    def set_to_sum(self, adapter_name: str, weights: dict[str, float], kind: str) -> None:
        """Set A and B so that the update is the weighted sum of others."""
        set_to_sum(self, adapter_name, weights, kind)

    def rank_bound(self, adapter_name: str) -> int:
        """Return an upper bound of the rank of the update; needs no weights.

        With modulation by weight or noise: the sum of min(|rows_k|, |cols_k|) over blocks on the diagonal, or
        min(d_out, d_in) for other partitions. Without modulation: in addition at most the sum of ranks, for a grid over
        its rows (or columns) of tiles.
        """
        config = self.configs[adapter_name]
        bound = min(self.out_features, self.in_features)
        shapes = config.block_shapes(self.out_features, self.in_features)
        if config.partition in BLOCK_PARTITIONS:
            bound = sum(min(shape) for shape in shapes)
        if config.modulation != "none":
            return bound
        if config.partition != "grid_blocks":
            return min(bound, sum(config.ranks))
        count = config.num_subspaces
        total = sum(config.ranks[:count])  # of every row and of every column of tiles
        in_rows, in_cols = (min(m, total) for m, _ in shapes[::count]), (min(n, total) for _, n in shapes[:count])
        return min(sum(in_rows), sum(in_cols))

    def dense_update(self, adapter: str) -> Tensor:
        """Return the update ``s D = W' - W`` of shape (out_features, in_features), in the wider dtype of A and W."""
        A, B = self.smoa_A[adapter], self.smoa_B[adapter]
        scaling = self.configs[adapter].scaling
        weight = self.unmerged_weight()
        return delta_weight(A, B, weight, self.plan(adapter), scaling, torch.promote_types(A.dtype, weight.dtype))

    def merged_weight(self, adapters: list[str]) -> Tensor:
        """Return ``W + sum s D`` in the dtype of W; for one adapter bit for bit the matrix of the forward."""
        weight = self.unmerged_weight().detach()
        total: Tensor | None = None
        for name in adapters:
            A, B, plan, scaling = self.smoa_A[name], self.smoa_B[name], self.plan(name), self.configs[name].scaling
            if total is None:
                total = merged_weight(A, B, weight, plan, scaling)
            else:
                total = total + delta_weight(A, B, weight, plan, scaling, weight.dtype)
        return weight if total is None else total

    # ------------------------------------------------------------------------------------------------ forward

    def product(self, x: Tensor, adapter: str) -> Tensor:
        """Return ``s x D^T`` of shape (..., out_features)."""
        return self._update(x, adapter, include_base=False)

    def adapted_forward(self, x: Tensor, active: list[str], *args: Any, **kwargs: Any) -> Tensor:
        """Apply the first adapter without dropout and the frozen weight in one product, then add the other adapters."""
        base = self._base()
        if base.weight.requires_grad:
            raise UserError(
                f"the weight of layer {self.name} requires gradients, but SMoA adapts frozen weights only: train the "
                "layer through modules_to_save, or leave it out of target_modules."
            )
        plain = [name for name in active if not (self.training and self.configs[name].dropout > 0)]
        hooks = base._forward_hooks or base._forward_pre_hooks  # hooks run only if their layer is called
        if not plain or hooks or not multiplies_by_weight(base):
            return super().adapted_forward(x, active, *args, **kwargs)
        result = self._update(x, plain[0], include_base=True)
        for name in active:
            if name != plain[0]:
                result = result + self.product(self.dropouts[name](x), name)
        return result

    def _update(self, x: Tensor, adapter_name: str, include_base: bool) -> Tensor:
        weight, bias = self.unmerged_weight(), self._bias()
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if not include_base:
            bias = None
        config, plan = self.configs[adapter_name], self.plan(adapter_name)
        A, B = self.smoa_A[adapter_name], self.smoa_B[adapter_name]
        temporary = self._base().weight.is_meta or quantization(self._base()) is not None
        reload = self.unmerged_weight if temporary else None
        split = config.forward == "split"
        return smoa_linear(x, weight, bias, A, B, plan, config.scaling, include_base, split, reload)

"""Attach methods of peft whose set-up reads weights to a model without weights: only the shapes matter there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from peft import PeftConfig
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.frod.layer import FrodLayer
from peft.tuners.frod.model import FrodModel, _category_from_key
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn

from smoa_lightning.adapters.targets import matched_modules


def without_values(config: PeftConfig) -> PeftConfig:
    """Change a config so that it can be attached on the meta device with the same shapes; return it.

    SHiRA draws a mask of each weight and reads the places of its ones. Here it gets a mask with as many ones.
    """
    if config.peft_type == "SHIRA":
        config.mask_fn = _row_of_ones  # type: ignore[attr-defined]
    return config


def _row_of_ones(base_layer: Any, r: int, **_: Any) -> Tensor:
    return torch.ones(1, r * sum(base_layer.weight.shape))


@contextlib.contextmanager
def decompositions_without_values() -> Iterator[None]:
    """Give the results of FRoD's decomposition their shapes, without values and memory, and leave out MiCA's.

    peft decomposes the weights for FRoD on the CPU, with a cost of d_in^3 for every kind of layer.
    """
    with (
        patch.object(LoraLayer, "mica_init", lambda layer, adapter_name: None),
        patch.object(FrodModel, "_init_frod_projections", _blank_projections),
        patch.object(FrodLayer, "_calculate_frod_u_and_lambda", _blank_u_and_lambda),
    ):
        yield


def _blank(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(1, dtype=dtype).expand(*shape)


def _blank_u_and_lambda(layer: FrodLayer, V: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
    return _blank(W.shape[0], V.shape[1]), _blank(V.shape[1])


def _blank_projections(tuner: Any, config: Any, adapter_name: str) -> None:
    """Replace ``FrodModel._init_frod_projections``: V is d_in x d_in, S has sparse_rate d_in^2 entries."""
    tuner.frod_V, tuner.frod_s_indices, tuner.frod_s_size = (nn.ModuleDict() for _ in range(3))
    for name, module in matched_modules(tuner.model, config):
        weight: Any = module.weight
        d_in = int(weight.shape[0 if config.fan_in_fan_out else 1])
        entries = min(int(d_in * d_in * config.sparse_rate), d_in * (d_in - 1))
        entries = max(entries, 1) if config.sparse_rate > 0 and d_in > 1 else entries
        blanks = _blank(d_in, d_in, dtype=weight.dtype), _blank(2, entries, dtype=torch.long), torch.tensor([d_in] * 2)
        for container, blank in zip((tuner.frod_V, tuner.frod_s_indices, tuner.frod_s_size), blanks, strict=True):
            container[_category_from_key(name)] = BufferDict({}, persistent=config.save_projection)
            container[_category_from_key(name)][adapter_name] = blank

"""Whether a layer that looks linear is one: routers are subclasses of ``nn.Linear``, but return several values."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
from torch import Tensor, nn

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # other weights are quantised


def is_special(module: nn.Module) -> bool:
    """Return whether a subclass of ``nn.Linear`` does not map ``(rows, in_features)`` to ``(rows, out_features)``.

    A subclass with a forward of its own computes two rows of zeros on the meta device. Quantised layers are not tried.
    """
    own = isinstance(module, nn.Linear) and type(module).forward is not nn.Linear.forward
    if not own or module.weight.dtype not in _FLOATS:
        return False
    linear: Any = module
    tensors = {name: value.to("meta") for name, value in (*linear.named_parameters(), *linear.named_buffers())}
    rows = torch.empty(2, linear.in_features, dtype=linear.weight.dtype, device="meta")
    try:
        with torch.no_grad():
            found = torch.func.functional_call(linear, tensors, (rows,))
    except Exception:  # such a layer takes other inputs
        return True
    return not isinstance(found, Tensor) or found.shape != (2, linear.out_features)


def all_linear(model: nn.Module, config: PeftConfig) -> list[str] | str:
    """Return ``all-linear``, or the names that peft takes for it without special layers if the model has some."""
    special = {name for name, module in model.named_modules() if is_special(module)}
    if not special:
        return "all-linear"
    named: Any = copy.copy(config)
    named.target_modules = "all-linear"
    return sorted(set(_maybe_include_all_linear_layers(named, model).target_modules) - special)  # type: ignore[attr-defined]

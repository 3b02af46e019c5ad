"""Layers whose tensors accelerate keeps on the CPU or a disk, and loads for the time of a call only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def offload_hook(module: Any) -> Any:
    """Return the hook of accelerate that loads a module's own tensors; None if they are present."""
    hook = getattr(module, "_hf_hook", None)
    if hook is None or not any(parameter.is_meta for parameter in module.parameters(recurse=False)):
        return None
    hooks = getattr(hook, "hooks", (hook,))
    return next((part for part in hooks if getattr(part, "offload", False)), None)


def load_tensor(module: Any, name: str) -> Tensor | None:
    """Return a tensor of a module by its name, loaded to the device of the module's calls; None if there is none."""
    tensor: Tensor | None = getattr(module, name)
    hook = offload_hook(module)
    if tensor is None or hook is None or not tensor.is_meta:
        return tensor
    loaded: Tensor = torch.as_tensor(hook.weights_map[name])
    return loaded.detach().to(hook.execution_device)

"""Which tensors of a peft model belong to its adapters, decided by module identity and never by name."""

from __future__ import annotations

from collections.abc import Iterator

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn


def _adapter_modules(model: PeftModel) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts that peft added: the tuners' containers, wrapped copies of trained modules, prompt encoders."""
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and isinstance(module, nn.Module):
            for child_name, child in module.named_children():
                if child_name != "base_layer":
                    yield f"{name}.{child_name}", child
        elif isinstance(module, AuxiliaryTrainingWrapper):
            for child_name, child in module.named_children():
                if child_name != "original_module":
                    yield f"{name}.{child_name}", child
    if getattr(model, "prompt_encoder", None) is not None:
        yield "prompt_encoder", model.prompt_encoder


def adapter_parameter_names(model: PeftModel) -> set[str]:
    """Return the full names of the parameters that training the active adapters must move, and no others.

    Biases of the backbone count when an adapter's ``bias`` setting trains them.
    """
    active = set(model.active_adapters)
    names = {
        f"{prefix}.{name}"
        for prefix, module in _adapter_modules(model)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and active & set(f"{prefix}.{name}".split("."))
    }
    if any(getattr(model.peft_config[adapter], "bias", "none") != "none" for adapter in active):
        names |= {n for n, p in model.named_parameters() if n.endswith(".bias") and p.requires_grad}
    return names


def adapter_state_names(model: PeftModel) -> set[str]:
    """Return the names of all tensors that a checkpoint must hold: what is trained and the adapters' saved buffers."""
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for prefix, module in _adapter_modules(model):
        names |= {f"{prefix}.{name}" for name in module.state_dict()}
    return names

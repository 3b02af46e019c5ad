"""Select the tensors of a peft model that belong to its adapters, by module identity and not by name."""

from __future__ import annotations

from collections.abc import Iterator

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

from smoa_lightning.adapters.combine import weights_of
from smoa_lightning.backbones.heads import new_head


def _adapter_modules(model: PeftModel) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that peft added: containers of tuners, copies of trained modules, prompt encoders."""
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and isinstance(module, nn.Module):
            for child_name, child in module.named_children():
                if child_name != "base_layer":
                    yield f"{name}.{child_name}", child
        elif isinstance(module, AuxiliaryTrainingWrapper):
            for child_name, child in module.named_children():
                if child_name != "original_module":
                    yield f"{name}.{child_name}", child
    if isinstance(model.base_model, BaseTuner):  # Shadow's small model belongs to no layer
        for name, child in model.base_model.named_children():
            if name.startswith("shadow_"):
                yield f"base_model.{name}", child
    if getattr(model, "prompt_encoder", None) is not None:
        yield "prompt_encoder", model.prompt_encoder


def adapter_parameter_names(model: PeftModel) -> set[str]:
    """Return the full names of exactly those parameters that training the active adapters changes.

    This includes biases of the backbone if an adapter's ``bias`` setting trains them.
    """
    active = set(model.active_adapters)
    names = {
        f"{prefix}.{name}"
        for prefix, module in _adapter_modules(model)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and active & set(f"{prefix}.{name}".split("."))
    }
    if any(getattr(weights_of(model).peft_config[adapter], "bias", "none") != "none" for adapter in active):
        names |= {n for n, p in model.named_parameters() if n.endswith(".bias") and p.requires_grad}
    return names


def head_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the trained parameters of a new head, of the backbone with or without an adapter."""
    base = network.get_base_model() if isinstance(network, PeftModel) else network
    return [p for name in new_head(base) for p in base.get_submodule(name).parameters() if p.requires_grad]


def adapter_state_names(model: PeftModel) -> set[str]:
    """Return the names of all tensors in a checkpoint: trained parameters and the adapters' saved buffers."""
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for prefix, module in _adapter_modules(model):
        names |= {f"{prefix}.{name}" for name in module.state_dict()}
    return names

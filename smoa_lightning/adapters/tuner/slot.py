"""The adapter slot: a small residual map after a module, as in bottleneck adapters."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from smoa_lightning.adapters.targets import SLOT_DROPOUTS, SLOT_TARGETS
from smoa_lightning.adapters.tuner.config import TunerConfig
from smoa_lightning.adapters.tuner.frozen import linear_shape
from smoa_lightning.adapters.tuner.layer import BASE, AdapterLayer
from smoa_lightning.common.errors import UserError, nearest

Placement = Literal["houlsby", "pfeiffer"]


class SlotLayer(AdapterLayer):
    r"""``h' = h + sum over active adapters of f(h)`` with ``h = base(x)``, after attention or feed-forward.

    The base is the output projection, or any module that returns the hidden states alone or first in a tuple. f is not
    linear and does not update a weight, so that a slot cannot be merged and has no rank.

    A method supplies :meth:`residual`; ``activations`` holds the function in each adapter's config.

    Args:
        base_layer: The module before the slot.
        name: Full name of the module in its model.
        width: Size n of the hidden states.
    """

    other_param_names = ("dropouts", "configs", "activations")
    supplied = ("initial_parameters", "residual")

    def __init__(self, base_layer: nn.Module, name: str, width: int) -> None:
        super().__init__(base_layer, name)
        self.width = width
        self.out_features, self.in_features = linear_shape(base_layer) or (width, width)
        self.activations = nn.ModuleDict()  # without parameters

    def update_layer(self, adapter_name: str, config: Any) -> None:
        """Add an adapter that starts without effect; ``activation`` is a field of its config."""
        self.activations[adapter_name] = activation_function(config)
        super().update_layer(adapter_name, config)

    def residual(self, h: Tensor, adapter: str) -> Tensor:
        """Return f(h) of shape (..., width) for h of the same shape; zero for a new adapter."""
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module and apply the active adapters to its hidden states.

        Raises:
            UserError: The module does not return hidden states of the slot's width.
        """
        output = self.base_layer(*args, **kwargs)
        active = self.own_adapters()
        if self.disable_adapters or not (active or self.adapters_of_rows):
            return output
        self.require_loaded()
        hidden = output[0] if isinstance(output, tuple) else output
        if not isinstance(hidden, Tensor) or hidden.shape[-1] != self.width:
            returned = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
            raise UserError(
                f"the adapter after {self.name} needs hidden states of size {self.width}, alone or first in a tuple, "
                f"but the module returned {returned}; name its output projection in target_modules instead."
            )
        result = self._mixed(hidden) if self.adapters_of_rows is not None else self._adapted(hidden, active)
        return (result, *output[1:]) if isinstance(output, tuple) else result

    def _adapted(self, hidden: Tensor, active: list[str]) -> Tensor:
        result = hidden
        for name in active:
            result = result + self.residual(self.dropouts[name](hidden), name).to(hidden.dtype)
        return result

    def _mixed(self, hidden: Tensor) -> Tensor:
        """Apply to every row its own adapter."""
        result = hidden.clone()
        for name, rows in self.rows_by_adapter(len(hidden)).items():
            if name != BASE:
                result[rows] = self._adapted(hidden[rows], [name])
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse to merge, since a nonlinear map after a layer does not change its weight.

        Raises:
            UserError: Always.
        """
        raise UserError(
            f"the adapter after {self.name} is a nonlinear map in the adapter slot and cannot be merged into a weight: "
            "keep it as an adapter, or use a method in the update slot."
        )

    def unmerge(self) -> None:
        """Do nothing: a slot is never merged."""


def slot_targets(config: Any, model_type: str) -> list[str] | str | None:
    """Return the default modules before a slot, for the ``placement`` of a config; None if they are not known.

    ``houlsby`` (arXiv 1902.00751): after attention and after feed-forward. ``pfeiffer`` (arXiv 2005.00247): only after
    feed-forward. With ``after_dropout`` they are the backbone's dropouts after these. In BERT the name
    ``output.dense`` also ends ``attention.output.dense``; a regular expression then selects the feed-forward module.

    Raises:
        UserError: ``layers_to_transform`` is set with such a regular expression; peft would ignore it. Or the dropouts
            are no modules of their own.
    """
    if model_type not in SLOT_TARGETS:
        return None
    attention, feedforward = _after_dropout(config, model_type) if config.after_dropout else SLOT_TARGETS[model_type]
    if config.placement == "houlsby":
        return [*attention, *feedforward]
    inner = {a.removesuffix(f".{name}") for a in attention for name in feedforward if a.endswith(f".{name}")}
    if not inner:
        return list(feedforward)
    pattern = "|".join(map(re.escape, feedforward))
    if config.layers_to_transform is not None:
        raise UserError(
            f"{type(config).__name__}.layers_to_transform has no effect under placement 'pfeiffer' for the "
            f"architecture {model_type!r}, whose default target_modules is a regular expression: set target_modules to "
            rf"one with the layer indices, such as '.*layer\.(0|1)\.({pattern})'."
        )
    return f".*{''.join(f'(?<!{re.escape(word)})' for word in sorted(inner))}\\.({pattern})"


def is_after_attention(name: str) -> bool:
    """Return whether a slot is after attention, from the full name of its module.

    >>> is_after_attention("model.layers.0.self_attn.o_proj"), is_after_attention("model.layers.0.mlp.down_proj")
    (True, False)
    """
    return "attn" in name or "attention" in name


def _after_dropout(config: Any, model_type: str) -> tuple[list[str], list[str]]:
    places = SLOT_DROPOUTS.get(model_type, SLOT_TARGETS[model_type])
    if places is None:
        known = ", ".join(name for name, modules in SLOT_DROPOUTS.items() if modules)
        raise UserError(
            f"{type(config).__name__}.after_dropout is true, but the architecture {model_type!r} has no separate "
            f"dropout modules after attention and feed-forward (these have: {known}): set it to false."
        )
    return places


def slot_width(module: nn.Module, model: nn.Module) -> int | None:
    """Return the size of a module's hidden states: the outputs of a linear layer, else the model's hidden size."""
    shape = linear_shape(module)
    if shape is not None:
        return shape[0]
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    size = getattr(config, "hidden_size", None)
    return size if isinstance(size, int) else None


def require_slot_width(module: nn.Module, model: nn.Module, name: str) -> int:
    """Return :func:`slot_width`.

    Raises:
        UserError: The module is not a linear layer, and the model's config has no hidden size.
    """
    width = slot_width(module, model)
    if width is None:
        raise UserError(
            f"the adapter slot after {name} has no known width: {type(module).__name__} is neither nn.Linear nor "
            f"Conv1D with floating-point weights, and the config of {type(model).__name__} has no hidden_size; name "
            "its output projection in target_modules instead."
        )
    return width


def activation_function(config: TunerConfig, zero_at_zero: bool = False) -> nn.Module:
    """Return the function of transformers that the field ``activation`` names.

    Args:
        config: A config with that field.
        zero_at_zero: Refuse functions with act(0) != 0, with which the adapter does not start as the identity.

    Raises:
        UserError: The function is unknown, has parameters, or must be zero at zero and is not.
    """
    name, where = config.activation, type(config).__name__  # type: ignore[attr-defined]
    function = ACT2FN[name] if isinstance(name, str) and name in ACT2FN else None
    if not isinstance(function, nn.Module) or any(True for _ in function.parameters()):
        known = [key for key in ACT2FN if key not in ("prelu", "xielu")]
        raise UserError(
            f"{where}.activation is {name!r}, but must be a function of transformers without parameters; nearest: "
            f"{nearest(str(name), known, 3)}."
        )
    if zero_at_zero and function(torch.zeros(1, device="cpu")).item() != 0:
        raise UserError(
            f"{where}.activation is {name!r}, but its value at 0 is not 0, so that the adapter would not start as the "
            "identity; use gelu, relu, silu or tanh."
        )
    return function

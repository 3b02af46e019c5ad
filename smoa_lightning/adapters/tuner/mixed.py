"""Batches in which every row has its own adapter: ``model(..., adapter_names=["default", "__base__"])``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

from smoa_lightning.adapters.tuner.layer import BASE, AdapterLayer
from smoa_lightning.common.errors import UserError, nearest


@contextlib.contextmanager
def rows_with_adapters(model: nn.Module, names: list[str] | None, num_beams: Any = None) -> Iterator[None]:
    """Let the layers of a model use one adapter for each row while the context is open.

    Args:
        model: An adapted model in evaluation mode.
        names: Name of the adapter of each row, or ``__base__``; None changes nothing.
        num_beams: Number of beams of a generation, which repeats every row.

    Raises:
        UserError: The model is in training mode, an adapter does not exist, or beams go through an encoder.
    """
    if names is None:
        yield
        return
    _check(model, names)
    if isinstance(num_beams, int) and num_beams > 1:
        if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            raise UserError(
                "adapter_names with beams are not supported for an encoder with a decoder: set num_beams=1."
            )
        names = [name for name in names for _ in range(num_beams)]
    layers = [module for module in model.modules() if isinstance(module, AdapterLayer)]
    saved = [module for module in model.modules() if isinstance(module, AuxiliaryTrainingWrapper)]
    give = partial(_give_names, names=names)
    handles = [module.register_forward_pre_hook(give, with_kwargs=True) for module in saved]
    try:
        for layer in layers:
            layer.adapters_of_rows = names
        yield
    finally:
        for layer in layers:
            layer.adapters_of_rows = None
        for handle in handles:
            handle.remove()


def _give_names(module: nn.Module, args: Any, kwargs: dict[str, Any], names: list[str]) -> tuple[Any, dict[str, Any]]:
    return args, {**kwargs, "adapter_names": names}


def _check(model: nn.Module, names: list[str]) -> None:
    if model.training:
        raise UserError("adapter_names are for evaluation only, but the model is in training mode: call model.eval().")
    known = {name for module in model.modules() if isinstance(module, AdapterLayer) for name in module.configs}
    for row, name in enumerate(names):
        if name not in known | {BASE}:
            raise UserError(
                f"adapter_names gives row {row} the adapter {name!r}, which does not exist; nearest: "
                f"{nearest(str(name), [*sorted(known), BASE], 1)}."
            )

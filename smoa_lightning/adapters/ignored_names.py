"""Refuse ``adapter_names`` of a forward or a generation where the method of peft would ignore them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from peft import AdaLoraModel, PeftModel

from smoa_lightning.adapters.method_names import method_name
from smoa_lightning.common.errors import UserError


def refuse_ignored_names(model: PeftModel) -> None:
    """Let a model raise if it gets ``adapter_names`` but its method has no adapters of single rows.

    A method with such adapters opens a context around each forward. For any other tuner, peft drops ``adapter_names``
    and uses the active adapter for every row. Prompt methods pass them to the backbone, which ignores them. AdaLoRA
    inherits the context of LoRA, but its layers do not take the names.

    Args:
        model: An adapted model; it is changed in place.
    """
    tuner = model.base_model
    if hasattr(type(tuner), "_enable_peft_forward_hooks") and not isinstance(tuner, AdaLoraModel):
        return
    method = method_name(model.active_peft_config)
    model.register_forward_pre_hook(partial(_check_forward, method), with_kwargs=True)
    model._enable_peft_forward_hooks = partial(_context, method)  # type: ignore[method-assign]


def _check_forward(method: str, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
    if kwargs.get("adapter_names") is not None:
        raise UserError(
            f"adapter_names are set, but {method} of peft would ignore them and use one adapter for every row: leave "
            "them out and choose the adapter with set_adapter, or use LoRA or a method of smoa_lightning"
        )


@contextlib.contextmanager
def _context(method: str, *args: Any, **kwargs: Any) -> Iterator[None]:
    _check_forward(method, None, args, kwargs)
    yield

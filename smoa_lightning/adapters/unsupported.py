"""Refuse methods of peft that need more than gradients of the loss, since they would train as a different method."""

from __future__ import annotations

import warnings
from typing import Any

from peft import PeftConfig
from peft.tuners.boft.layer import get_fbd_cuda

from smoa_lightning.adapters.method_names import method_name
from smoa_lightning.common.errors import UserError

_DATA_DRIVEN = {"eva", "corda", "lora_ga"}
_TYPES = {
    "POLY": "needs the task of each row",
    "MULTITASK_PROMPT_TUNING": "needs the task of each row",
    "XLORA": "mixes adapters that are already trained",
    "LILY": "mixes its matrices by a mean over all tokens of a batch, so that a score depends on the other rows",
    "ADAMSS": "splits each weight by k-means, so that its size is unknown before the weights are read",
    "CPT": "has a separate loss over the examples in its prompt",
}


def check_supported(config: PeftConfig) -> None:
    """Refuse a method whose training needs an unsupported loss, unsupported labels or an unsupported preparation.

    AdaLoRA's budget updates are supported (:mod:`smoa_lightning.adapters.adalora`); OSF and others bring their own
    hooks.

    Args:
        config: Configuration of any peft method.

    Raises:
        UserError: The method is not supported.
    """
    settings: Any = config
    kind = method_name(config)
    initialisation = getattr(settings, "init_lora_weights", None)
    if kind in _TYPES:
        raise UserError(f"model.adapter: {kind} {_TYPES[kind]}; it is not supported: choose a different strategy")
    if isinstance(initialisation, str) and initialisation.lower() in _DATA_DRIVEN:
        raise UserError(
            f"model.adapter.init_lora_weights: {initialisation!r} initialises from training rows, which is not "
            "supported; 'pissa' and 'olora' initialise from the weights alone"
        )
    if kind == "BOFT" and settings.boft_n_butterfly_factor > 1 and not _cuda_compiler():
        raise UserError(
            f"model.adapter.boft_n_butterfly_factor: {settings.boft_n_butterfly_factor} factors need a CUDA compiler, "
            "and without it peft trains one factor; set it to 1"
        )
    for setting in ("kasa_config", "monteclora_config"):
        if getattr(settings, setting, None) is not None:
            raise UserError(f"model.adapter.{setting}: adding its regularisation to the loss is not supported; omit it")
    if getattr(settings, "auxiliary_loss_weight", 0):
        raise UserError("model.adapter.auxiliary_loss_weight: Shadow's second loss is not supported; set it to 0")


def _cuda_compiler() -> bool:
    """Whether peft can build its extension for more than one butterfly factor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns twice if it cannot
        return bool(get_fbd_cuda())

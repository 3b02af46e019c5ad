"""Attach an adapter of any peft method to a backbone, checked first and seeded."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, TaskType, get_peft_model
from torch import nn

from smoa_lightning.adapters.targets import matched_modules, resolve_targets
from smoa_lightning.adapters.tuner import AdapterModel, TunerConfig
from smoa_lightning.common.errors import UserError


def attach(model: nn.Module, config: PeftConfig, seed: int) -> PeftModel:
    """Put an adapter into a backbone.

    The adapter is initialised from ``seed`` alone, without touching the random state of the caller, its parameters are
    float32 over a half-precision backbone, and all other parameters are frozen. On the meta device no spectrum is
    computed.

    Args:
        model: The backbone; its layers are replaced in place.
        config: Configuration of any peft method; it is not changed. An absent task type becomes CAUSAL_LM for a model
            that can generate.
        seed: Seed of the adapter's initial parameters.

    Returns:
        The adapted model.

    Raises:
        UserError: Targets that match nothing, ranks or numbers of subspaces that do not fit a layer, or settings that
            peft itself refuses.
    """
    config = resolve_targets(model, config)
    if config.task_type is None and hasattr(model, "prepare_inputs_for_generation"):
        config.task_type = TaskType.CAUSAL_LM
    if isinstance(config, TunerConfig):
        for name, module in matched_modules(model, config):
            config.check_target(name, module)  # before any layer has been replaced
    try:
        with seeded(model, seed), quiet_peft():
            adapted = get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"peft refuses this {type(config).__name__}: {_one_sentence(error)}") from error
    if isinstance(adapted.base_model, AdapterModel):
        for adapter_name in adapted.active_adapters:
            adapted.base_model.prepare(adapter_name)
    return cast(PeftModel, adapted)


@contextlib.contextmanager
def seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """Draw random numbers from a seed alone, on the devices of a model; the caller's random state stays as it was."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Leave out a warning of peft 0.21, which asks transformers through a deprecated name: no user can change that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


@contextlib.contextmanager
def without_adapter(network: Any) -> Iterator[Any]:
    """Give the untouched backbone of an adapted model, to run or to generate with.

    A prompt method's virtual tokens are put before the input by the model around the backbone, so that the backbone
    itself is given; of other methods the layers are switched off.
    """
    if not isinstance(network, PeftModel):
        yield network
        return
    with network.disable_adapter():
        yield network.get_base_model() if network.active_peft_config.is_prompt_learning else network


def _one_sentence(error: Any) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith(".") else text + "."

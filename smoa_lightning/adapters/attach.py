"""Check the settings of any peft method and attach its adapter to a backbone, from a seed."""

from __future__ import annotations

import contextlib
import copy
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, TaskType, get_peft_model
from torch import nn

from smoa_lightning.adapters.ignored_names import refuse_ignored_names
from smoa_lightning.adapters.targets import check_saved_modules, matched_modules, resolve_targets
from smoa_lightning.adapters.token_indices import check_token_indices
from smoa_lightning.adapters.tuner import AdapterModel, TunerConfig
from smoa_lightning.adapters.weightless import decompositions_without_values, without_values
from smoa_lightning.adapters.zero_scale import refuse_zero_scale
from smoa_lightning.backbones.heads import new_head
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.common.registered import require_registered

# What peft raises for settings that it cannot follow. A RuntimeError may be a full memory, or the meta device.
REFUSALS = (ValueError, ImportError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, re.error)


def attach(model: nn.Module, config: PeftConfig, seed: int) -> PeftModel:
    """Put an adapter into a backbone.

    The adapter is initialised from ``seed`` alone; the caller's random state does not change. Its parameters are
    float32 even on a half-precision backbone, and all other parameters are frozen but those of a new head, which is
    trained in full and saved with the adapter. On the meta device no spectrum is
    computed.

    Args:
        model: The backbone; its layers are replaced in place.
        config: Configuration of any peft method; it is not changed. Without a task type, a model that can generate
            gets CAUSAL_LM.
        seed: Seed of the adapter's initial parameters.

    Returns:
        The adapted model.

    Raises:
        UserError: Targets match nothing, ranks or numbers of subspaces do not fit a layer, a scale is 0, or peft
            refuses a setting.
    """
    require_registered(config)
    check_reads_tokens(model, config)
    config = with_head(config, new_head(model), tokens=reads_tokens(model))
    config = resolve_targets(model, config)
    check_saved_modules(model, config)
    check_token_indices(model, config)
    if config.task_type is None and hasattr(model, "prepare_inputs_for_generation"):
        config.task_type = TaskType.CAUSAL_LM
    if isinstance(config, TunerConfig):
        for name, module in matched_modules(model, config):
            config.for_layer(name).check_target(name, module)  # before any layer is replaced
    on_meta = any(p.is_meta for p in model.parameters())  # where code that needs weights fails in its own ways
    refusals = (ValueError, ImportError, re.error) if on_meta else REFUSALS
    try:
        blank = decompositions_without_values() if on_meta else contextlib.nullcontext()
        with seeded(model, seed), quiet_peft(), blank:
            adapted = get_peft_model(model, without_values(config) if on_meta else config)
    except refusals as error:
        raise UserError(f"peft refuses this {type(config).__name__}: {_one_sentence(error)}") from error
    if isinstance(adapted.base_model, AdapterModel):
        for adapter_name in adapted.active_adapters:
            adapted.base_model.prepare(adapter_name)
    refuse_ignored_names(cast(PeftModel, adapted))
    refuse_zero_scale(cast(PeftModel, adapted), config)
    return cast(PeftModel, adapted)


def reads_tokens(model: nn.Module) -> bool:
    """Whether a model reads token ids; else it reads images."""
    return getattr(model, "main_input_name", None) != "pixel_values"


def check_reads_tokens(model: nn.Module, config: PeftConfig) -> None:
    """Refuse a prompt method, and new embeddings of tokens, for a model that reads images.

    Raises:
        UserError: The message names the method or the setting.
    """
    if reads_tokens(model):
        return
    tokens = next((name for name in ("trainable_token_indices", "token_indices") if getattr(config, name, None)), None)
    if tokens is not None:
        raise UserError(f"{tokens} names tokens, but the model reads images: remove it")
    if config.is_prompt_learning:
        raise UserError(
            f"model.adapter: {type(config).__name__} puts virtual tokens before a text, but the model reads images: "
            "choose a method that changes weights, such as peft.LoraConfig"
        )


def with_head(config: PeftConfig, head: Sequence[str], tokens: bool = True) -> PeftConfig:
    """Return a config that trains the modules of a new head in full and does not adapt them.

    Args:
        config: Configuration of any peft method; it is not changed.
        head: Names of the modules; without names the config is returned as it is.
        tokens: Whether the model reads token ids; else it reads images.

    Raises:
        UserError: The method cannot train further modules.
    """
    if not head:
        return config
    config = copy.deepcopy(config)
    settings: Any = config
    if not hasattr(config, "modules_to_save"):
        raise UserError(
            f"model.adapter: {type(config).__name__} cannot train the new head ({', '.join(head)}) with the adapter: "
            "choose a method with modules_to_save"
        )
    config.task_type = TaskType.SEQ_CLS if tokens else None  # peft's class for images is the plain one
    settings.modules_to_save = sorted({*(settings.modules_to_save or ()), *head})
    return config


@contextlib.contextmanager
def seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """Draw random numbers from a seed, on the devices of a model, and restore the caller's random state."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Hide a warning that peft 0.21 causes with a deprecated name of transformers; users cannot avoid it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


@contextlib.contextmanager
def without_adapter(network: Any) -> Iterator[Any]:
    """Yield the base model of an adapted model, to run it or to generate with it.

    For a prompt method this is the model inside, because the model around it inserts virtual tokens. For any other
    method, the adapters of the layers are switched off.
    """
    if not isinstance(network, PeftModel):
        yield network
        return
    with network.disable_adapter():
        yield network.get_base_model() if network.active_peft_config.is_prompt_learning else network


def _one_sentence(error: Any) -> str:
    text = one_line(error)
    return text if text.endswith(".") else text + "."

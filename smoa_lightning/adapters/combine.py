"""Combine a prompt method with a method that adapts weights: both train, save, load and switch off together."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft import (
    PeftConfig,
    PeftModel,
    PeftModelForCausalLM,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TaskType,
)
from torch import nn

from smoa_lightning.adapters.attach import REFUSALS, attach, quiet_peft, seeded
from smoa_lightning.adapters.ignored_names import refuse_ignored_names
from smoa_lightning.backbones.heads import new_head
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.configuration.class_names import check_adapter_files

WEIGHTS = "weights"  # folder of the adapter of weights, inside that of the prompt
PAIRED = (PromptTuningConfig, PromptEncoderConfig, PrefixTuningConfig)


class CombinedModel(PeftModelForCausalLM):
    """A prompt method around a backbone whose layers already have an adapter of weights.

    Generation, scoring and gradients run through both adapters. :meth:`save_pretrained` and :meth:`disable_adapter`
    act on both, where peft's own act on the prompt only.

    Args:
        weights: The backbone with its adapter of weights.
        prompt: Configuration of a prompt method.
        adapter_name: Name of the prompt's adapter.
    """

    def __init__(self, weights: PeftModel, prompt: PeftConfig, adapter_name: str = "default", **kwargs: Any) -> None:
        trained = [parameter for parameter in weights.parameters() if parameter.requires_grad]
        super().__init__(weights.get_base_model(), prompt, adapter_name, **kwargs)
        for parameter in trained:
            parameter.requires_grad_(True)  # the prompt method has frozen them
        self._weights = (weights,)  # a tuple hides the module: its parameters are already part of base_model

    @property
    def weights(self) -> PeftModel:
        """The backbone with only its adapter of weights, to merge, save or inspect it."""
        return self._weights[0]

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Run the base model without both adapters."""
        with super().disable_adapter(), self.weights.disable_adapter():
            yield

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """Write the prompt's adapter to a folder, and that of the weights to its subfolder ``weights``."""
        super().save_pretrained(str(save_directory), **kwargs)
        self.weights.save_pretrained(str(Path(save_directory) / WEIGHTS), **kwargs)


def weights_of(model: PeftModel) -> PeftModel:
    """Return the part of an adapted model that changes weights: the adapter of weights of a pair, else the model."""
    return model.weights if isinstance(model, CombinedModel) else model


def check_pair(weights: PeftConfig | None, prompt: PeftConfig | None, budget: bool = False) -> None:
    """Refuse settings that are no pair of a prompt method and a method of weights.

    Args:
        weights: ``model.adapter``.
        prompt: ``model.prompt``; ``None`` accepts any ``weights``.
        budget: Whether a budget decides the size of the adapter.

    Raises:
        UserError: The message names the setting and what it takes.
    """
    if prompt is None:
        return
    if not isinstance(prompt, PAIRED):
        names = ", ".join(f"peft.{kind.__name__}" for kind in PAIRED)
        raise UserError(f"model.prompt is {type(prompt).__name__}, but takes one of {names}")
    if weights is None or weights.is_prompt_learning:
        found = "null" if weights is None else f"{type(weights).__name__}, a prompt method"
        raise UserError(
            f"model.prompt is set, but model.adapter is {found}: set model.adapter to a method that adapts weights, or "
            "give the prompt method as model.adapter and set model.prompt to null"
        )
    if budget:
        raise UserError(
            "model.budget sets the size of one method, but model.prompt adds another one: set the sizes themselves, or "
            "model.prompt to null"
        )


def attach_strategy(model: nn.Module, adapter: PeftConfig, prompt: PeftConfig | None, seed: int) -> PeftModel:
    """Attach an adapter, alone or together with a prompt method; see :func:`attach` and :func:`attach_both`."""
    return attach(model, adapter, seed) if prompt is None else attach_both(model, adapter, prompt, seed)


def attach_both(model: nn.Module, weights: PeftConfig, prompt: PeftConfig, seed: int) -> CombinedModel:
    """Attach an adapter of weights and a prompt method to a backbone; both are trained.

    Args:
        model: A causal language model; its layers are replaced in place.
        weights: Configuration of any method that adapts layers, as for :func:`attach`.
        prompt: Configuration of prompt tuning, P-tuning or prefix tuning.
        seed: Seed of the initial parameters of both.

    Raises:
        UserError: ``prompt`` is not a prompt method, or ``weights`` is one; the model is no language model; or peft
            refuses a setting.
    """
    if new_head(model):
        raise UserError("model.prompt is for language models, and the task has a new head: set model.prompt to null")
    for config, expected in ((weights, False), (prompt, True)):
        if config.is_prompt_learning != expected:
            raise UserError(
                f"{type(config).__name__} cannot be used as the {'prompt' if expected else 'weights'} of a pair: give "
                "one method that adapts layers and one prompt method, such as PromptTuningConfig."
            )
    adapted = attach(model, weights, seed)
    prompt = copy.deepcopy(prompt)  # peft writes the sizes of this backbone into it
    prompt.task_type = TaskType.CAUSAL_LM
    try:
        with seeded(model, seed), quiet_peft():
            combined = CombinedModel(adapted, prompt)
    except REFUSALS as error:
        raise UserError(f"peft refuses this {type(prompt).__name__}: {one_line(error)}") from error
    refuse_ignored_names(combined)
    return combined


def is_pair(folder: str | Path) -> bool:
    """Return whether an adapter folder holds a prompt and an adapter of weights."""
    return (Path(folder) / WEIGHTS / "adapter_config.json").is_file()


def load_both(model: nn.Module, folder: str | Path, is_trainable: bool = False) -> CombinedModel:
    """Load the files of :meth:`CombinedModel.save_pretrained` onto a backbone.

    Raises:
        UserError: The folder does not hold a pair of adapters.
    """
    inner = Path(folder) / WEIGHTS
    if not is_pair(folder):
        raise UserError(f"{folder} holds no pair of adapters: {WEIGHTS}/adapter_config.json is missing.")
    check_adapter_files(inner)
    check_adapter_files(Path(folder))
    with quiet_peft():
        weights = PeftModel.from_pretrained(model, str(inner), is_trainable=is_trainable)
        prompt = PeftConfig.from_pretrained(str(folder))
        prompt.inference_mode = not is_trainable
        combined = CombinedModel(weights, prompt)
        combined.load_adapter(str(folder), "default", is_trainable=is_trainable)
    refuse_ignored_names(combined)
    if not is_trainable:
        combined.requires_grad_(False)
    return combined

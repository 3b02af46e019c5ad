"""Combine a prompt method with a method that adapts weights: both train, save, load and switch off together."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, PeftModelForCausalLM, TaskType
from torch import nn

from smoa_lightning.adapters.attach import attach, quiet_peft, seeded
from smoa_lightning.adapters.ignored_names import refuse_ignored_names
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.class_names import check_adapter_files

WEIGHTS = "weights"  # folder of the adapter of weights, inside that of the prompt


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


def attach_both(model: nn.Module, weights: PeftConfig, prompt: PeftConfig, seed: int) -> CombinedModel:
    """Attach an adapter of weights and a prompt method to a backbone; both are trained.

    Args:
        model: A causal language model; its layers are replaced in place.
        weights: Configuration of any method that adapts layers, as for :func:`attach`.
        prompt: Configuration of prompt tuning, P-tuning or prefix tuning.
        seed: Seed of the initial parameters of both.

    Raises:
        UserError: ``prompt`` is not a prompt method, or ``weights`` is one.
    """
    for config, expected in ((weights, False), (prompt, True)):
        if config.is_prompt_learning != expected:
            raise UserError(
                f"{type(config).__name__} cannot be used as the {'prompt' if expected else 'weights'} of a pair: give "
                "one method that adapts layers and one prompt method, such as PromptTuningConfig."
            )
    adapted = attach(model, weights, seed)
    prompt = copy.deepcopy(prompt)  # peft writes the sizes of this backbone into it
    prompt.task_type = TaskType.CAUSAL_LM
    with seeded(model, seed), quiet_peft():
        combined = CombinedModel(adapted, prompt)
    refuse_ignored_names(combined)
    return combined


def load_both(model: nn.Module, folder: str | Path, is_trainable: bool = False) -> CombinedModel:
    """Load the files of :meth:`CombinedModel.save_pretrained` onto a backbone.

    Raises:
        UserError: The folder does not hold a pair of adapters.
    """
    inner = Path(folder) / WEIGHTS
    if not (inner / "adapter_config.json").is_file():
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

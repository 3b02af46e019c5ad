"""The values from which a new head starts: random ones from a seed, or the names of the classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from smoa_lightning.backbones.backbone import Location, content, reading_errors
from smoa_lightning.backbones.class_texts import SETTING, class_weights
from smoa_lightning.backbones.heads import follow_padding, new_head, no_load_report
from smoa_lightning.backbones.tokenizer import load_tokenizer
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.process_cache import cached


def prepare_head(model: PreTrainedModel, location: Location, seed: int, pad_id: int | None) -> None:
    """Give a new head its first values where the files lack it, and let it be trained, in float32.

    Steps of usual learning rates are below the rounding of weights in half precision.

    Args:
        model: The loaded model; it is changed in place.
        location: Where it was loaded from, with its head.
        seed: Seed of random values.
        pad_id: The pad token.

    Raises:
        UserError: The head starts from texts, but the files hold one already, or lack the text tower.
    """
    initialise(model, seed)
    if location.head.texts:
        start_from_texts(model, location)
    follow_padding(model, location.head, pad_id)
    for head in keep_in_float32(model):
        head.requires_grad_(True)


def keep_in_float32(model: nn.Module) -> list[nn.Module]:
    """Let a new head compute in float32 on a backbone of any number format; return its modules."""
    heads = [model.get_submodule(name).float() for name in new_head(model)]
    for head in heads:
        head.register_forward_pre_hook(_in_its_dtype, with_kwargs=True)
    return heads


def _in_its_dtype(head: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Give a head its inputs in the number format of its weights; peft copies it with this hook."""
    dtype = next(head.parameters()).dtype

    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return tuple(map(cast, args)), {name: cast(value) for name, value in kwargs.items()}


@torch.no_grad()
def initialise(model: PreTrainedModel, seed: int) -> None:
    """Draw the weights of a head that the files lack, by the rule of the model's class in transformers.

    Args:
        model: The loaded model; it is changed in place.
        seed: Seed of the values.
    """
    missing: tuple[str, ...] = getattr(model, "missing_head", ())
    modules = dict.fromkeys(name.rpartition(".")[0] for name in missing)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for module in map(model.get_submodule, modules):
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False  # type: ignore[attr-defined]
            model._init_weights(module)


@torch.no_grad()
def start_from_texts(model: Any, location: Location) -> None:
    """Let the head of CLIP start from the texts of its classes.

    Raises:
        UserError: The files hold a head already, or lack the text tower or its tokenizer.
    """
    if "classifier.weight" not in getattr(model, "missing_head", ()):
        raise UserError(f"{SETTING} is set, but the files of {location.name!r} hold a trained head: set it to null")
    head, tokenizer = location.head, load_tokenizer(location)
    with no_load_report(), reading_errors(location):
        made = cached(
            "class texts",
            content(location),
            lambda: class_weights(location.reading(), tokenizer, head.names, head.texts),
        )
    model.classifier.weight.copy_(made)
    model.classifier.bias.zero_()

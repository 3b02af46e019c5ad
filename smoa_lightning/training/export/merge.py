"""The merged model: the update is added in float32, and the sum is cast once."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from smoa_lightning.backbones.backbone import read_architecture, reading_errors
from smoa_lightning.backbones.fused import join_fused
from smoa_lightning.backbones.processor import TIMM, load_image_processor
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.training.export.source import Source, check_updates_weights, no_form

HALF = (torch.bfloat16, torch.float16)


@torch.no_grad()
def merged_model(source: Source, format: str = "merged") -> PreTrainedModel:
    """Return the backbone with the update in its weights, in float32.

    Args:
        source: What is exported.
        format: Name of the format, for messages.

    Raises:
        UserError: The method has no update of weights, or peft cannot merge it.
    """
    model = source.plain_model()
    check_updates_weights(source, model, format)
    _widen(model)
    if isinstance(model, PeftModel):
        model = _merged(model, source, format)
    join_fused(model)
    _separate_output(model)
    model.config.use_cache = getattr(read_architecture(source.location), "use_cache", True)  # training switches it off
    return model


def _widen(model: nn.Module) -> None:
    """Make the half-precision weights float32; other tensors, such as float64 spectra, stay as they are."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.dtype in HALF:
            tensor.data = tensor.data.float()


def _merged(model: PeftModel, source: Source, format: str) -> PreTrainedModel:
    _untie_adapted(model.get_base_model())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tied weights, which _separate_output handles
            merged: PreTrainedModel = model.merge_and_unload()
    except (NotImplementedError, AttributeError, ValueError, TypeError) as error:
        raise no_form(source, f"cannot be merged into the weights by peft ({one_line(error)})", format) from error
    return merged


def _untie_adapted(model: Any) -> None:
    """Give the output embedding a weight of its own before an update of one of the tied embeddings is merged.

    The update acts in one of them only, but peft adds it to the weight that both share.
    """
    outputs = model.get_output_embeddings()
    if outputs is None:  # models of images have neither
        return
    inputs = model.get_input_embeddings()
    if not (isinstance(inputs, BaseTunerLayer) or isinstance(outputs, BaseTunerLayer)):
        return
    if getattr(outputs, "tied_adapter", None) is not None:  # new embeddings of single tokens act in both
        return
    first: Any
    last: Any
    first, last = (m.get_base_layer() if isinstance(m, BaseTunerLayer) else m for m in (inputs, outputs))
    if last.weight is first.weight:
        last.weight = nn.Parameter(last.weight.detach().clone(), requires_grad=False)


def _separate_output(model: PreTrainedModel) -> None:
    """Record that the output embedding is no longer the input embedding, if the update changed one of them."""
    outputs: Any = model.get_output_embeddings()
    if outputs is None:
        return
    inputs: Any = model.get_input_embeddings()
    settings = model.config.get_text_config()
    if settings.tie_word_embeddings and outputs.weight is not inputs.weight:
        settings.tie_word_embeddings = model.config.tie_word_embeddings = False


@torch.no_grad()
def cast_once(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Cast a float32 model.

    Raises:
        UserError: A weight is too large for float16.
    """
    largest = torch.finfo(dtype).max
    for name, parameter in model.named_parameters():
        if parameter.numel() and float(parameter.abs().max()) > largest:
            raise UserError(f"export: {name} has a value above {largest:g}, the largest of float16: use bfloat16")
    model.to(dtype)  # type: ignore[arg-type]
    return model


def write_model(model: PreTrainedModel, source: Source, folder: Path) -> None:
    """Write a model with the backbone's own tokenizer or image processor, and its generation settings."""
    model.save_pretrained(folder)
    if source.location.head.reads_images:
        if model.config.model_type != TIMM:  # there the config has the settings of the image processor
            load_image_processor(source.location).save_pretrained(folder)
        return
    with reading_errors(source.location):
        tokenizer = AutoTokenizer.from_pretrained(**source.location.reading())
    for name in ("local_files_only", "is_local"):  # transformers would write how the files were read
        tokenizer.init_kwargs.pop(name, None)
    tokenizer.save_pretrained(folder)

"""The merged model: the update is added in float32, and the sum is cast once."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from smoa_lightning.backbones.backbone import read_architecture, reading_errors
from smoa_lightning.backbones.fused import join_fused
from smoa_lightning.backbones.processor import TIMM, load_image_processor
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.training.export.source import Source, check_updates_weights, no_form

ROWS = 4  # random inputs of each layer
SHARE, ROUNDING = 0.01, 1e-5  # largest difference of a merged layer: of the effect of its adapter, of its outputs
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
    outputs = layer_outputs(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tied weights, which _separate_output handles
            merged: PreTrainedModel = model.merge_and_unload()
    except (NotImplementedError, AttributeError, ValueError, TypeError) as error:
        raise no_form(source, f"cannot be merged into the weights by peft ({one_line(error)})", format) from error
    check_merged(merged, outputs, source.method)
    return merged


@dataclass(frozen=True)
class LayerOutput:
    """What an adapted layer makes of random inputs, in float32.

    Args:
        inputs: Random inputs (rows, in_features).
        adapted: Its outputs with the adapter (rows, out_features).
        base: Its outputs without the adapter.
    """

    inputs: Tensor
    adapted: Tensor
    base: Tensor


@torch.no_grad()
def layer_outputs(model: PeftModel) -> dict[str, LayerOutput]:
    """Return name -> outputs of each adapted linear layer, before the update is merged."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, layer in model.get_base_model().named_modules():
        base = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else None
        if not isinstance(base, nn.Linear | Conv1D) or not base.weight.is_floating_point():
            continue
        size = base.weight.shape[0 if isinstance(base, Conv1D) else 1]
        inputs = torch.randn(ROWS, size, generator=generator).to(base.weight)
        found[name] = LayerOutput(inputs, layer(inputs), base(inputs))
    return found


@torch.no_grad()
def check_merged(merged: nn.Module, outputs: Mapping[str, LayerOutput], method: str) -> None:
    """Refuse a merged layer that computes something other than the layer with its adapter.

    Args:
        merged: The model with the updates in its weights.
        outputs: The outputs before, from :func:`layer_outputs`.
        method: Name of the method, for the message.

    Raises:
        UserError: The outputs of a layer differ by more than ``SHARE`` of what the adapter adds, and by more than the
            rounding of float32.
    """
    layers = dict(merged.named_modules())  # peft's adapter of tokens in a tied embedding is gone
    for name, before in ((name, before) for name, before in outputs.items() if name in layers):
        error = float((layers[name](before.inputs) - before.adapted).norm())
        effect, size = float((before.adapted - before.base).norm()), float(before.adapted.norm())
        if not error <= SHARE * effect + ROUNDING * size:  # also if it is not a number
            raise UserError(
                f"export: the merged weight of {name} is wrong: its outputs differ from those of the layer with the "
                f"adapter by {error / max(effect, 1e-30):.0%} of what {method} adds, so nothing is written"
            )


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

"""The frozen network that a strategy adapts: a causal language model and its tokenizer, from hub, folder or package."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from smoa_lightning.backbones.hub import hub_answers, hub_errors, resolve_source
from smoa_lightning.backbones.quantization import prepare_quantized, quantization, quantization_config, quantized_layers
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.process_cache import cached, is_active
from smoa_lightning.embedded import backbone_folder


@dataclass
class BackboneConfig:
    """Which causal language model is adapted, and in which number format it is held.

    Args:
        source: ``hub``: the model hub. ``local``: the folder ``path``. ``embedded``: the small model shipped with
            this package. ``auto``: the hub if it answers or its cache holds the model, else embedded.
        name: Repository of the model on the hub.
        path: Folder of a Hugging Face model, for ``source: local``.
        revision: Branch, tag or commit on the hub; ``null`` means its default branch.
        dtype: Number format of the frozen weights and of the matrix products; adapter parameters stay in float32.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, about one third more time.
        attn_implementation: Attention kernel of transformers (``sdpa``, ``eager``, ``flash_attention_2``, ...).
        quantization: Hold the linear layers in 8 bits (``int8``, LLM.int8()) or 4 bits (``nf4``, as in QLoRA) of
            bitsandbytes, which the extra ``quantization`` installs; ``null`` holds them in ``dtype``.
        dequantize: When a method that needs a quantised weight W itself gets it: ``per_forward`` makes it anew in
            every forward and backward of a layer, ``cached`` keeps all of them in ``dtype``: faster, but no smaller
            than a backbone that is not quantised.
    """

    source: Literal["auto", "hub", "local", "embedded"] = "auto"
    name: str = "HuggingFaceTB/SmolLM2-135M"
    path: str | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    attn_implementation: str | None = None
    quantization: Literal["int8", "nf4"] | None = None
    dequantize: Literal["per_forward", "cached"] = "per_forward"


@dataclass(frozen=True)
class Location:
    """Where a backbone is read from: the source that was decided, the name or folder, the revision."""

    source: Literal["hub", "local", "embedded"]
    name: str
    revision: str | None = None

    def reading(self) -> dict[str, Any]:
        """Return the arguments with which transformers reads from here.

        A repository that is in the cache is read from there when the hub does not answer, without retries.
        """
        offline = self.source != "hub" or not hub_answers()
        revision = self.revision or "main"
        return {"pretrained_model_name_or_path": self.name, "revision": revision, "local_files_only": offline}


def locate(config: BackboneConfig) -> Location:
    """Decide the source of the backbone without loading it.

    Raises:
        UserError: ``source: local`` without a folder that holds a ``config.json``; a hub that does not answer.
    """
    source = resolve_source(config.source, config.name, "model", config.revision, embedded_available=True)
    if source == "local":
        if config.path is None:
            raise UserError("model.backbone.source is 'local' but model.backbone.path is not set: name a model folder")
        if not (Path(config.path) / "config.json").is_file():
            raise UserError(f"model.backbone.path: no config.json in {config.path!r}, so it is not a model folder")
        return Location("local", str(Path(config.path).resolve()))
    if source == "embedded":
        return Location("embedded", str(backbone_folder()))
    return Location("hub", config.name, config.revision)


@contextlib.contextmanager
def reading_errors(location: Location) -> Iterator[None]:
    """Turn what transformers raises about a repository or a damaged folder into one sentence."""
    try:
        with hub_errors(location.name, revision=location.revision):
            yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"cannot read the backbone from {location.name!r}: {reason}") from error


def load_tokenizer(location: Location) -> PreTrainedTokenizerBase:
    """Load the tokenizer and make sure that it can pad; see ``keeping`` for many runs of one process.

    A model without a pad token pads with its EOS token. That never touches the loss: targets are masked by length,
    never by comparing token ids, so a real EOS stays a target.
    """
    return copy.deepcopy(cached("tokenizer", _content(location), lambda: _read_tokenizer(location)))


def _read_tokenizer(location: Location) -> PreTrainedTokenizerBase:
    with reading_errors(location):
        tokenizer = AutoTokenizer.from_pretrained(**location.reading())
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {location.name!r} has no EOS token, so a response could never end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(config: BackboneConfig, location: Location) -> PreTrainedModel:
    """Load the causal language model in the configured dtype, ready for training an adapter.

    With gradient checkpointing the embeddings are made to require gradients, since a frozen embedding would cut the
    graph before the first checkpointed block. A checkpoint that is stored quantised is loaded as it is.

    Where things are kept (see ``keeping``), a copy of the model that was loaded first is given: adapters change
    modules, and some of them weights.

    Raises:
        UserError: The folder or repository cannot be read, bitsandbytes is missing, or the checkpoint is quantised
            already.
    """
    if not is_active() or config.quantization is not None:  # packed weights come with state of their library
        return _read_model(config, location)
    key = config.dtype, config.gradient_checkpointing, config.attn_implementation, _content(location)
    return copy.deepcopy(cached("backbone", key, lambda: _read_model(config, location), most=1))


def _content(location: Location) -> Hashable:
    """What tells one backbone from another, and a folder from itself after a change of its files."""
    folder = Path(location.name)
    files = sorted(folder.iterdir()) if location.source != "hub" else []
    return location, tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _read_model(config: BackboneConfig, location: Location) -> PreTrainedModel:
    dtype: torch.dtype = getattr(torch, config.dtype)
    kwargs: dict[str, Any] = {"dtype": dtype}
    if config.attn_implementation is not None:
        kwargs["attn_implementation"] = config.attn_implementation
    if config.quantization is not None:
        kwargs["quantization_config"] = _quantization(config.quantization, dtype, location)
    with reading_errors(location):
        model = AutoModelForCausalLM.from_pretrained(**location.reading(), **kwargs)
    prepare_quantized(model, dtype, keep=config.dequantize == "cached")
    model.config.use_cache = False
    if config.gradient_checkpointing:
        if hasattr(model, "activation_checkpointing_enable"):  # its name from transformers 5.2x on
            model.activation_checkpointing_enable({"use_reentrant": False})
        else:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model


def _quantization(kind: str, dtype: torch.dtype, location: Location) -> BitsAndBytesConfig:
    settings = quantization_config(kind, dtype)
    with reading_errors(location):
        stored = getattr(AutoConfig.from_pretrained(**location.reading()), "quantization_config", None)
    if stored is not None:
        raise UserError(
            f"model.backbone.quantization is {kind!r}, but the weights of {location.name!r} are stored quantised "
            "already: set it to null."
        )
    return settings


def load_skeleton(config: BackboneConfig, location: Location) -> PreTrainedModel:
    """Build the model on the meta device from its config alone: shapes and names without a byte of weights.

    The layers are those of a floating-point backbone whatever ``quantization`` says: it changes no shape and no count.
    """
    with reading_errors(location):
        architecture = AutoConfig.from_pretrained(**location.reading())
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(architecture, dtype=getattr(torch, config.dtype))


def context_length(location: Location) -> int | None:
    """Return how many positions the model takes, None where its config names no such limit."""
    with reading_errors(location):
        architecture = AutoConfig.from_pretrained(**location.reading())
    return getattr(architecture.get_text_config(), "max_position_embeddings", None)


def provenance(location: Location, model: nn.Module | None = None) -> dict[str, Any]:
    """Return where the backbone came from: source, name, revision or the SHA-256 of its weight files.

    Of a loaded model also how its linear layers are held: in 8 or 4 bits, or ``null`` for floating point.
    """
    facts: dict[str, Any] = {"source": location.source, "name": location.name, "revision": location.revision}
    if model is not None:
        facts["quantization"] = next((quantization(layer) for layer in quantized_layers(model)), None)
    if location.source == "hub":
        facts["commit"] = getattr(getattr(model, "config", None), "_commit_hash", None)
        return facts
    if location.source == "embedded":
        facts["name"] = "smoa_lightning/embedded/backbone"
    facts["sha256"] = {}
    for file in sorted(Path(location.name).glob("*.safetensors")):
        with file.open("rb") as stream:
            facts["sha256"][file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return facts


def size_name(location: Location) -> str:
    """Return a short name for tables and run names: the last part of the repository or folder."""
    return "embedded" if location.source == "embedded" else Path(location.name).name or json.dumps(location.name)

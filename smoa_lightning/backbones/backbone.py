"""The backbone that a strategy adapts, with the head of the run, from hub, folder or package."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoConfig,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.quantizers.auto import get_hf_quantizer

from smoa_lightning.backbones.attention import choose_kernel, kernel_of
from smoa_lightning.backbones.fused import SETTING, split_fused
from smoa_lightning.backbones.heads import LANGUAGE_MODEL, Head, mark_head, mark_missing, no_load_report, without_head
from smoa_lightning.backbones.hub import commit_of, hub_answers, hub_errors, remember_commit, resolve_source
from smoa_lightning.backbones.kernels import check_kernels
from smoa_lightning.backbones.limits import Limits, limits_of_architecture
from smoa_lightning.backbones.quantization import prepare_quantized, quantization, quantization_config, quantized_layers
from smoa_lightning.backbones.weights import check_complete, check_finite, same_random_values
from smoa_lightning.common.checksums import sha256
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.common.known_checksums import known_sha256
from smoa_lightning.common.paths import check_model_folder, local_path
from smoa_lightning.common.process_cache import cached, is_active
from smoa_lightning.embedded import backbone_folder

# files of a model folder that decide how weights and texts are read
SETTINGS = ("config.json", "tokenizer*.json", "tokenizer.model", "special_tokens_map.json", "vocab.*", "merges.txt",
            "chat_template.*", "preprocessor_config.json", "processor_config.json")  # fmt: skip


@dataclass
class BackboneConfig:
    """The causal language model to adapt, and its number format.

    Args:
        source: ``hub``: the model hub. ``local``: the folder ``path``. ``embedded``: the small model shipped with
            this package, a decoder for language modelling and an encoder for a new head. ``auto``: the hub if it
            answers or its cache holds the model, else embedded.
        name: Repository of the model on the hub.
        path: Folder of a Hugging Face model, for ``source: local``.
        revision: Branch, tag or commit on the hub; ``null`` means the default branch.
        dtype: Number format of the frozen weights and of the matrix products; adapter parameters stay in float32.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, about one third more time.
        attn_implementation: Attention kernel of transformers (``sdpa``, ``eager``, ``flash_attention_2``, ...).
            ``null`` takes that of transformers, and for short bfloat16 rows on a CPU a faster backward.
        quantization: Store the linear layers in 8 bits (``int8``, LLM.int8()) or 4 bits (``nf4``, as in QLoRA). This
            needs bitsandbytes, from the extra ``quantization``. ``null`` stores them in ``dtype``.
        dequantize: When a quantised weight is dequantised for a method that needs the weight itself. ``per_forward``
            does it in every forward and backward of a layer. ``cached`` does it once and keeps the result in
            ``dtype``: faster, but with the memory of a backbone that is not quantised.
        allow_missing: Names of parameters that the files may lack, or patterns with ``*``. They get random values, the
            same in every run. ``null`` refuses files that lack a parameter.
        split_fused: Whether fused layers (``qkv`` of timm, ``c_attn`` of GPT-2, ``qkv_proj`` and ``gate_up_proj`` of
            Phi-3, ``Wqkv`` and ``Wi`` of ModernBERT) become one layer for each part, so that adapters can change single
            parts: ``target_modules: [qkv.q, qkv.v]``.
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
    allow_missing: list[str] | None = None
    split_fused: bool = False


@dataclass(frozen=True)
class Location:
    """Where a backbone is read from, and with which head.

    Args:
        source: The resolved source.
        name: Repository or folder.
        revision: Branch, tag or commit on the hub.
        commit: Commit of the revision.
        head: The head that the model gets.
    """

    source: Literal["hub", "local", "embedded"]
    name: str
    revision: str | None = None
    commit: str | None = None
    head: Head = LANGUAGE_MODEL

    def reading(self) -> dict[str, Any]:
        """Return the arguments for transformers to read from here.

        If the hub does not answer, a cached repository is read without retries.
        """
        offline = self.source != "hub" or not hub_answers()
        revision = self.commit or self.revision or "main"
        where = {"pretrained_model_name_or_path": self.name, "revision": revision, "local_files_only": offline}
        return {**where, "trust_remote_code": False}  # otherwise transformers asks the user


def locate(config: BackboneConfig, head: Head = LANGUAGE_MODEL) -> Location:
    """Decide the source of the backbone, and its commit on the hub, without loading it.

    Raises:
        UserError: ``source: local`` without a folder that holds a ``config.json``, or with a file that is not
            regular; the hub does not answer; or quantised weights with a new head.
    """
    if head.is_new and config.quantization is not None:
        raise UserError(
            f"model.backbone.quantization is {config.quantization!r}, but a new head for {head.kind.replace('_', ' ')} "
            "is trained on floating-point weights only: set it to null"
        )
    if config.split_fused and config.quantization is not None:
        raise UserError(
            f"{SETTING} is true and model.backbone.quantization is {config.quantization!r}, but only floating-point "
            "layers are split: remove one of them"
        )
    if config.path is not None and config.source != "local":
        raise UserError(
            f"model.backbone.path is set, but model.backbone.source is {config.source!r}: set model.backbone.source to "
            "local, or remove the path"
        )
    source = resolve_source(config.source, config.name, "model", config.revision, embedded_available=True)
    if source == "local":
        if config.path is None:
            raise UserError("model.backbone.source is 'local' but model.backbone.path is not set: name a model folder")
        check_model_folder(config.path)
        _check_files(local_path(config.path))
        return Location("local", str(local_path(config.path).resolve()), head=head)
    if source == "embedded":
        return Location("embedded", str(backbone_folder(head.kind)), head=head)
    return Location("hub", config.name, config.revision, commit_of(config.name, "model", config.revision), head)


def _check_files(folder: Path) -> None:
    """Refuse a folder, pipe, device or broken link in the place of a file: reading a pipe or device may never end."""
    for file in sorted({*_weights(folder), *(file for name in SETTINGS for file in folder.glob(name))}):
        if not file.is_file():
            raise UserError(f"model.backbone.path: {file} is not a regular file; put the model's file in its place")


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))


@contextlib.contextmanager
def reading_errors(location: Location) -> Iterator[None]:
    """Turn an exception of transformers about a repository or a damaged folder into one sentence.

    transformers raises many kinds: ``KeyError`` for an unknown name in a config, ``ImportError`` for a package of a
    quantised checkpoint, ``ZeroDivisionError`` for no heads. Lack of memory passes unchanged.
    """
    try:
        with hub_errors(location.name, revision=location.revision):
            yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = one_line(error, 300, kind=True)
        raise UserError(f"cannot load the backbone from {location.name!r}: {reason}") from error


def read_architecture(location: Location) -> PretrainedConfig:
    """Read the configuration of the backbone.

    Raises:
        UserError: It cannot be read, cannot have the head, or names an attention kernel of the hub, which is code.
    """
    with reading_errors(location):
        architecture: PretrainedConfig = AutoConfig.from_pretrained(**location.reading(), **location.head.settings())
    location.head.check(architecture, location.name)
    check_kernels(architecture, f"the backbone {location.name!r}")
    return architecture


def load_model(config: BackboneConfig, location: Location) -> PreTrainedModel:
    """Load the model with its head in the configured dtype, ready for training an adapter.

    A checkpoint that is already quantised is loaded as it is.

    Inside ``process_cache`` the result is a copy of the cached model, because adapters change modules and some weights.

    Raises:
        UserError: The folder or repository cannot be read, lacks weights, or has a weight that is not finite.
            bitsandbytes is missing, or ``quantization`` is set for a checkpoint that is already quantised.
    """
    if not is_active() or config.quantization is not None:  # packed weights hold state of bitsandbytes
        return _read_model(config, location)
    missing = tuple(config.allow_missing or ())
    own = config.dtype, config.gradient_checkpointing, config.attn_implementation, config.split_fused
    key = (*own, missing, content(location))
    return copy.deepcopy(cached("backbone", key, lambda: _read_model(config, location), most=1))


def content(location: Location) -> Hashable:
    """Identify a backbone; a change of the files in its folder changes the result."""
    folder = Path(location.name)
    with reading_errors(location):
        files = sorted(folder.iterdir()) if location.source != "hub" else []
        return location, tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _read_model(config: BackboneConfig, location: Location) -> PreTrainedModel:
    dtype: torch.dtype = getattr(torch, config.dtype)
    kwargs: dict[str, Any] = {"dtype": dtype}
    if config.attn_implementation is not None:
        kwargs["attn_implementation"] = config.attn_implementation
    if config.quantization is not None:
        kwargs["quantization_config"] = _quantization(config.quantization, dtype, location)
    model = complete_model(location, config.allow_missing or (), **kwargs)
    if config.attn_implementation is None:
        choose_kernel(model)
    if config.split_fused:
        split_fused(model, location.name)
    prepare_quantized(model, dtype, keep=config.dequantize == "cached")
    model.config.use_cache = False
    if config.gradient_checkpointing:
        enable_checkpointing(model)
    if location.source == "hub":
        remember_commit(location.name, "model", location.revision, location.commit)
    return model


def enable_checkpointing(model: PreTrainedModel) -> None:
    """Switch on gradient checkpointing, and let the embeddings require gradients.

    A frozen embedding would cut the graph before the first checkpointed block.
    """
    if hasattr(model, "activation_checkpointing_enable"):  # the name since transformers 5.2x
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if model.main_input_name != "pixel_values":  # images have no embedding of tokens
        model.enable_input_require_grads()


def complete_model(location: Location, allow_missing: Collection[str] = (), **kwargs: Any) -> PreTrainedModel:
    """Read a model, and check that its files hold all its weights and that they are finite.

    Raises:
        UserError: The files cannot be read, or a weight is missing, has a different shape or is not finite.
    """
    read_architecture(location)
    head, settings = location.head, location.head.settings()
    quiet = no_load_report() if head.is_new else contextlib.nullcontext()
    with quiet, reading_errors(location), same_random_values(bool(allow_missing) or head.is_new):
        loaded: Any = head.auto_class.from_pretrained(
            **location.reading(), **settings, **kwargs, output_loading_info=True, ignore_mismatched_sizes=True
        )
    model: PreTrainedModel
    model, report = loaded
    mark_head(model, head)
    if head.is_new:
        missing, report = without_head(model, report)
        mark_missing(model, missing)
    check_complete(report, allow_missing, location.name)
    check_finite(model, location.name)
    return model


def _quantization(kind: str, dtype: torch.dtype, location: Location) -> BitsAndBytesConfig:
    settings = quantization_config(kind, dtype)
    with reading_errors(location):
        stored = getattr(AutoConfig.from_pretrained(**location.reading()), "quantization_config", None)
    if stored is not None:
        raise UserError(
            f"model.backbone.quantization is {kind!r}, but the weights of {location.name!r} are already quantised: "
            "set it to null."
        )
    return settings


def load_skeleton(config: BackboneConfig, location: Location) -> PreTrainedModel:
    """Build the model on the meta device from its config: shapes and names, without weights.

    ``quantization`` is ignored, since it changes no shape and no number of parameters.
    """
    architecture = read_architecture(location)
    with reading_errors(location), torch.device("meta"):
        model: PreTrainedModel = location.head.auto_class.from_config(
            architecture, dtype=getattr(torch, config.dtype), trust_remote_code=False
        )
    mark_head(model, location.head)
    if config.split_fused:
        split_fused(model, location.name)
    return model


def check_loadable(config: BackboneConfig, location: Location) -> None:
    """Refuse, before any weight is read, a backbone that transformers cannot build.

    Raises:
        UserError: The config describes no model, a quantised checkpoint needs a package that is not installed, or the
            index of the weights in a folder is damaged.
    """
    load_skeleton(config, location)
    architecture = copy.deepcopy(read_architecture(location))
    with reading_errors(location):
        if getattr(architecture, "quantization_config", None) is not None:
            get_hf_quantizer(architecture, None, None, True, {})
        for index in Path(location.name).glob("*.index.json") if location.source != "hub" else ():
            json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()


def limits(location: Location) -> Limits:
    """Return what the model can be fed, without an adapter; no limits for images."""
    architecture = read_architecture(location)
    return Limits() if location.head.reads_images else limits_of_architecture(architecture)


def provenance(location: Location, model: nn.Module | None = None) -> dict[str, Any]:
    """Return the origin of the backbone: source, name, revision and commit, or the SHA-256 of its files.

    For a loaded model, ``quantization`` is the format of its linear layers, or ``null`` for floating point, and
    ``attention`` its attention kernel.
    """
    facts: dict[str, Any] = {"source": location.source, "name": location.name, "revision": location.revision}
    if model is not None:
        facts["quantization"] = next((quantization(layer) for layer in quantized_layers(model)), None)
        facts["attention"] = kernel_of(model)
    if location.head.is_new:
        facts["head"] = location.head.facts()
    if location.source == "hub":
        facts["commit"] = location.commit or getattr(getattr(model, "config", None), "_commit_hash", None)
        return facts
    if location.source == "embedded":
        facts["name"] = f"smoa_lightning/embedded/{Path(location.name).name}"
    folder = Path(location.name)
    facts["sha256"] = {file.name: known_sha256(file) for file in _weights(folder)}
    facts["files"] = {file.name: sha256(file) for name in SETTINGS for file in sorted(folder.glob(name))}
    return facts


def size_name(location: Location) -> str:
    """Return a short name for tables and run names: the last part of the repository or folder."""
    return "embedded" if location.source == "embedded" else Path(location.name).name or json.dumps(location.name)

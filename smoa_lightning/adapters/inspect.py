"""The parts of an adapted model: layers, trainable parameters, rank bounds and bytes, for any peft method."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from peft import PeftConfig, PeftModel
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from torch import nn
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters.combine import weights_of
from smoa_lightning.adapters.method_names import method_name
from smoa_lightning.adapters.parameters import head_parameters
from smoa_lightning.adapters.targets import matched_modules, resolve_targets
from smoa_lightning.adapters.tuner import SlotLayer, UpdateLayer
from smoa_lightning.backbones.fused import SplitLinear
from smoa_lightning.backbones.heads import in_new_head


@dataclass(frozen=True)
class AdaptedLayer:
    """One layer with an adapter.

    Attributes:
        name: Full name of the layer in the backbone.
        kind: The peft method in small letters, such as ``lora`` or ``smoa``.
        out_features: d_out.
        in_features: d_in.
        trainable_parameters: Number of trainable parameters in this layer; those of several layers count for the first.
        rank_bound: Upper bound of the rank of the update W' - W; min(d_out, d_in) if no smaller bound is known. It is 0
            for an adapter slot, which does not update a weight.
    """

    name: str
    kind: str
    out_features: int
    in_features: int
    trainable_parameters: int
    rank_bound: int


def adapted_layers(model: PeftModel) -> list[AdaptedLayer]:
    """List the layers that the active adapters change, in the order of the model; empty for prompt learning.

    Args:
        model: A model adapted with any peft method, on any device, meta included.
    """
    model = weights_of(model)
    layers = []
    seen: set[int] = set()
    for name, module in model.get_base_model().named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        active = [adapter for adapter in module.active_adapters if adapter in module._get_available_adapters()]
        if not active:
            continue
        out_features, in_features = _shape(module)
        limit = min(out_features, in_features)
        bounds = [_rank_bound(module, adapter, model.peft_config[adapter], limit) for adapter in active]
        layers.append(
            AdaptedLayer(
                name=name,
                kind=method_name(model.peft_config[active[0]]).lower(),
                out_features=out_features,
                in_features=in_features,
                trainable_parameters=_trainable(module, seen),
                rank_bound=min(sum(bounds), out_features, in_features),
            )
        )
    return layers


def target_layers(model: nn.Module, config: PeftConfig) -> dict[str, nn.Module]:
    """Return name -> module for the modules that a strategy will adapt, in the order of the model.

    Args:
        model: The backbone, without adapters.
        config: The strategy; prompt learning adapts no module.

    Raises:
        UserError: A target matches no module.
    """
    if config.is_prompt_learning:
        return {}
    resolved: Any = resolve_targets(model, config)
    if str(getattr(resolved, "target_modules", None)).lower() != "all-linear":
        return dict(matched_modules(model, resolved))
    output = getattr(model, "get_output_embeddings", lambda: None)()
    linear = (
        (name, m)
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear | Conv1D) and not in_new_head(model, name)
    )
    return {name: module for name, module in linear if module is not output}


def _shape(layer: Any) -> tuple[int, int]:
    if isinstance(layer, SlotLayer):
        return layer.width, layer.width
    if getattr(layer, "out_features", None) and getattr(layer, "in_features", None):
        return int(layer.out_features), int(layer.in_features)
    weight = getattr(layer.get_base_layer(), "weight", None)
    if weight is None:  # a whole block (Shadow)
        width = next(iter(layer.get_base_layer().parameters())).shape[-1]
        return int(width), int(width)
    return (int(weight.shape[0]), int(weight.shape[1])) if weight.dim() == 2 else (weight.numel(), 1)


def _trainable(layer: BaseTunerLayer, seen: set[int]) -> int:
    """Count the trainable parameters of a tuner layer, without those of the layer inside it (its biases).

    Parameters that layers share (Uni-LoRA, VB-LoRA, ...) count once: ``seen`` holds those of earlier layers.
    """
    assert isinstance(layer, nn.Module)
    inner = {id(parameter) for parameter in layer.get_base_layer().parameters()}
    own = [p for p in layer.parameters() if p.requires_grad and id(p) not in inner and id(p) not in seen]
    seen.update(map(id, own))
    return sum(parameter.numel() for parameter in own)


def _rank_bound(layer: Any, adapter: str, config: Any, limit: int) -> int:
    """Return the bound of one adapter's update; ``limit`` if full rank is possible (DoRA, HiRA, OFT, C3A, ...)."""
    if isinstance(layer, UpdateLayer):
        return layer.rank_bound(adapter)
    if isinstance(layer, SlotLayer):
        return 0
    if isinstance(layer, TrainableTokensLayer):  # inside LoRA, too: only these rows change
        return min(limit, len(layer.token_indices[adapter]))
    known = _BOUNDS.get(method_name(config))
    bound = None if known is None else known(layer, adapter, config)
    return limit if bound is None else min(limit, bound)


def _lora_bound(layer: Any, adapter: str, config: Any) -> int | None:
    """Return r for B A; 2 r if W' - W = s (B A - B_0 A_0), as in PiSSA; None for DoRA and other variants."""
    start = str(getattr(config, "init_lora_weights", "")).lower()
    other = adapter in layer.lora_variant and start != "mica" and getattr(config, "velora_config", None) is None
    if layer.use_dora.get(adapter, False) or other or adapter not in layer.r:
        return None
    if start == "loftq":  # W is quantised
        return None
    return int(layer.r[adapter]) * (2 if start.startswith(("pissa", "olora", "corda", "lora_ga")) else 1)


def _lokr_bound(layer: Any, adapter: str, config: Any) -> int:
    """Return the product of the ranks of the two Kronecker factors, each dense or of rank r."""
    factors = []
    for name in ("lokr_w1", "lokr_w2"):
        dense, low = getattr(layer, name), getattr(layer, f"{name}_b")
        factors.append(
            min(dense[adapter].shape) if adapter in dense else int(layer.r[adapter]) if adapter in low else 0
        )
    return factors[0] * factors[1]


def _rank(layer: Any, adapter: str, config: Any) -> int:
    return int(config.r)


_BOUNDS: dict[str, Callable[[Any, str, Any], int | None]] = {  # by the name of the method
    "LORA": _lora_bound,
    "ADALORA": _lora_bound,
    "VERA": lambda layer, adapter, config: int(layer.r[adapter]),  # diag(b) B diag(d) A
    "LOHA": lambda layer, adapter, config: int(layer.r[adapter]) ** 2,  # (B1 A1) o (B2 A2)
    "LOKR": _lokr_bound,
    # k column blocks of rank r each, and a LoRA of rank hybrid_r
    "GRALORA": lambda layer, adapter, config: config.gralora_k * int(layer.r[adapter]) + config.hybrid_r,
    "MISS": lambda layer, adapter, config: None if config.init_weights == "bat" else int(config.r),  # D, repeated
    "DELORA": _rank,
    "PSOFT": _rank,  # B (R - 1) A
    "OSF": lambda layer, adapter, config: 2 * len(layer.osf_svd_params[adapter]["S_low"]),  # of a difference
    "HRA": _rank,  # every reflection adds a matrix of rank 1
    "PEANUT": _rank,
    "DEFT": _rank,
    "TINYLORA": _rank,
    "UNILORA": _rank,
    "VBLORA": _rank,
    "SHADOW": lambda layer, adapter, config: 0,  # no update of a weight
    # the real part (Z + conj Z) / 2 of the transform Z of n entries; Z has at most rank n
    "FOURIERFT": lambda layer, adapter, config: 2 * layer.fourierft_spectrum[adapter].numel(),
}


def largest_rank(model: PeftModel) -> int | None:
    """Return the largest rank that the method allows in a layer; None without adapted layers.

    The parts of a split layer are joined again, and their ranks add up.
    """
    base, bounds = model.get_base_model(), Counter[str]()
    for layer in adapted_layers(model):
        around = layer.name.rpartition(".")[0]
        split = isinstance(base.get_submodule(around), SplitLinear)
        bounds[around if split else layer.name] += layer.rank_bound
    return max(bounds.values(), default=None)


def sizes(network: nn.Module) -> dict[str, int]:
    """Count the trainable parameters (``trainable``), all parameters (``total``) and saved bytes (``adapter_bytes``).

    With a new head, ``trainable`` is without it, and ``head`` are its parameters, which every strategy trains. The
    saved bytes are those of the adapter with the head; without an adapter, those of the whole model if it is trained.
    """
    parameters = list(network.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if isinstance(network, PeftModel):
        saved = adapter_bytes(network)
    else:
        saved = sum(parameter.numel() * parameter.element_size() for parameter in parameters) if trained else 0
    of_head = sum(parameter.numel() for parameter in head_parameters(network))
    return {
        "trainable": sum(parameter.numel() for parameter in trained) - of_head,
        **({"head": of_head} if of_head else {}),
        "total": sum(parameter.numel() for parameter in parameters),
        "adapter_bytes": saved,
    }


def adapter_bytes(model: PeftModel) -> int:
    """Return the size in bytes of the safetensors files that ``save_pretrained`` writes for the active adapters.

    This works on the meta device, too: zeros with the same names, dtypes and shapes give a file of the same size.
    """
    total = 0 if weights_of(model) is model else adapter_bytes(weights_of(model))
    for adapter in model.active_adapters:
        with _prompts_in_memory(model, adapter):
            state = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
        blank = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in state.items()}
        total += len(safetensors.torch.save(blank, metadata={"format": "pt"}))
    return total


@contextlib.contextmanager
def _prompts_in_memory(model: PeftModel, adapter: str) -> Iterator[None]:
    """Replace a prompt encoder on the meta device by one without values on the CPU: peft computes what it saves."""
    encoders: Any = getattr(model, "prompt_encoder", {})
    if adapter not in encoders or not any(parameter.is_meta for parameter in encoders[adapter].parameters()):
        yield
        return
    encoder = encoders[adapter]
    encoders[adapter] = copy.deepcopy(encoder).to_empty(device="cpu")
    try:
        yield
    finally:
        encoders[adapter] = encoder

"""The layers that an adapter changes: defaults for each architecture, and an error if no layer matches."""

from __future__ import annotations

import copy
import re
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from torch import nn
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters.linear_layers import all_linear, is_special
from smoa_lightning.adapters.target_parameters import check_parameters
from smoa_lightning.backbones.fused import SplitLinear, split_names, split_patterns
from smoa_lightning.common.errors import UserError, nearest, the_nearest

# The attention inputs and both feed-forward layers (q, k, v, up, down), as the SMoA authors choose them. In an encoder
# output.dense also matches the attention output, since no ending distinguishes the two.
# In a mixture of experts only attention and shared experts are adapted, since routed experts are fused
# three-dimensional parameters. Feed-forward names are left out there: peft's LoRA would apply them to the experts.
_LLAMA = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
_FUSED_QKV = ["query_key_value", "dense_h_to_4h", "dense_4h_to_h"]
_FC = ["q_proj", "k_proj", "v_proj", "fc1", "fc2"]
_GPT2 = ["attn.c_attn", "mlp.c_fc", "mlp.c_proj"]
_ENCODER = ["query", "key", "value", "intermediate.dense", "output.dense"]

_LIKE_LLAMA = ["llama", "mistral", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3", "smollm3", "olmo", "olmo2"]
_LIKE_LLAMA += ["cohere", "stablelm"]
_LIKE_BERT = ["bert", "electra", "roberta", "deberta", "deberta-v2"]
_EXPERTS = ["mixtral", "qwen3_moe", "olmoe"]
_LIKE_VIT = ["vit", "deit", "beit", "dinov2", "dinov2_with_registers", "swin"]
_LIKE_CLIP = ["clip", "siglip"]

DEFAULT_TARGETS: dict[str, list[str]] = {
    **dict.fromkeys(_LIKE_LLAMA, _LLAMA),
    **dict.fromkeys(_EXPERTS, _LLAMA[:3]),
    "qwen2_moe": [*_LLAMA[:3], "shared_expert.up_proj", "shared_expert.down_proj"],
    **dict.fromkeys(["gpt_neox", "bloom", "falcon"], _FUSED_QKV),
    **dict.fromkeys(["opt", "phi", *_LIKE_VIT, *_LIKE_CLIP], _FC),
    "timm_wrapper": ["attn.qkv", "mlp.fc1", "mlp.fc2"],  # of its vision transformers; others have other names
    **dict.fromkeys(["gpt2", "gpt_bigcode"], _GPT2),
    "phi3": ["qkv_proj", "gate_up_proj", "down_proj"],
    "gptj": ["q_proj", "k_proj", "v_proj", "fc_in", "fc_out"],
    "gpt_neo": ["q_proj", "k_proj", "v_proj", "mlp.c_fc", "mlp.c_proj"],
    **dict.fromkeys(["bert", "electra", "roberta"], _ENCODER),
    "deberta": ["in_proj", *_ENCODER[3:]],
    "deberta-v2": ["query_proj", "key_proj", "value_proj", *_ENCODER[3:]],
    "modernbert": ["attn.Wqkv", "mlp.Wi", "mlp.Wo"],
}

# The output projections of attention and feed-forward. The adapter slot follows them, before the residual sum;
# bottleneck adapters and SURM use it (arXiv 1902.00751, 2406.17740). In a mixture of experts it follows the whole
# feed-forward block.
SLOT_TARGETS: dict[str, tuple[list[str], list[str]]] = {
    **dict.fromkeys([*_LIKE_LLAMA, "phi3"], (["self_attn.o_proj"], ["mlp.down_proj"])),
    **dict.fromkeys([*_EXPERTS, "qwen2_moe"], (["self_attn.o_proj"], ["mlp"])),
    "gpt_neox": (["attention.dense"], ["mlp.dense_4h_to_h"]),
    **dict.fromkeys(["bloom", "falcon"], (["self_attention.dense"], ["mlp.dense_4h_to_h"])),
    "opt": (["self_attn.out_proj"], ["fc2"]),
    "phi": (["self_attn.dense"], ["mlp.fc2"]),
    **dict.fromkeys(["gpt2", "gpt_bigcode"], (["attn.c_proj"], ["mlp.c_proj"])),
    "gptj": (["attn.out_proj"], ["mlp.fc_out"]),
    "gpt_neo": (["attn.attention.out_proj"], ["mlp.c_proj"]),
    **dict.fromkeys(_LIKE_BERT, (["attention.output.dense"], ["output.dense"])),
    "modernbert": (["attn.Wo"], ["mlp.Wo"]),
    **dict.fromkeys(_LIKE_VIT, (["attention.o_proj"], ["mlp.fc2"])),
    "timm_wrapper": (["attn.proj"], ["mlp.fc2"]),
    **dict.fromkeys(_LIKE_CLIP, (["self_attn.out_proj"], ["mlp.fc2"])),
}
# The backbone's dropouts after these projections, for slots with ``after_dropout``; None if the dropout is no module of
# its own, or one module for both places. Other architectures have no dropout there, so that both places are one.
SLOT_DROPOUTS: dict[str, tuple[list[str], list[str]] | None] = {
    **dict.fromkeys(_LIKE_BERT, (["attention.output.dropout"], ["output.dropout"])),
    **dict.fromkeys(["gpt2", "gpt_bigcode", "gptj"], (["attn.resid_dropout"], ["mlp.dropout"])),
    "gpt_neo": (["attn.attention.resid_dropout"], ["mlp.dropout"]),
    "gpt_neox": (["post_attention_dropout"], ["post_mlp_dropout"]),
    "phi3": (["resid_attn_dropout"], ["resid_mlp_dropout"]),
    **dict.fromkeys(
        ["opt", "bloom", "falcon", "phi", *_LIKE_VIT, *_LIKE_CLIP, "stablelm", "modernbert", "timm_wrapper"]
    ),
}
_FEEDFORWARD = {"up_proj", "down_proj", "dense_h_to_4h", "dense_4h_to_h", "fc1", "fc2", "fc_in", "fc_out", "c_fc"}
_FEEDFORWARD |= {"c_proj", "gate_up_proj", "intermediate.dense", "output.dense"}


def model_type(model: nn.Module) -> str | None:
    """Return the architecture from the config of a model, such as ``llama``; None for a plain module."""
    return getattr(getattr(model, "config", None), "model_type", None)


def resolve_targets(model: nn.Module, config: PeftConfig) -> PeftConfig:
    """Copy a config, fill in absent ``target_modules`` and check that the targets exist in the model.

    Absent targets become q, k, v, up and down of a known architecture, else ``all-linear``. This holds for every method
    that adapts linear layers, so that compared methods adapt the same layers. ``fan_in_fan_out`` is set if all targets
    are Conv1D; peft would do this with a warning. Prompt learning and methods that do not adapt linear layers
    (LayerNorm tuning) are unchanged.

    Args:
        model: The backbone, without adapters.
        config: Configuration of any peft method; it is not changed.

    Returns:
        A deep copy of the config, ready for ``peft.get_peft_model``.

    Raises:
        UserError: An entry of the list, or the regular expression, matches no module; the message shows the nearest
            names.
    """
    config = copy.deepcopy(config)
    settings: Any = config
    if config.is_prompt_learning or not hasattr(config, "target_modules"):
        return config
    check_parameters(model, settings)
    if settings.target_modules is None:
        if getattr(settings, "target_parameters", None) or not _adapts_linear_layers(model, config):
            return config
        settings.target_modules = _default_targets(model, config)
        if getattr(settings, "feedforward_modules", ()) is None and isinstance(settings.target_modules, list):
            targets = settings.target_modules
            names = [name for name in targets if name in _FEEDFORWARD or name.rpartition(".")[2] in _FEEDFORWARD]
            settings.feedforward_modules = names  # IA3 needs the names of the feed-forward targets
    if isinstance(settings.target_modules, str) and settings.target_modules.lower() == "all-linear":
        settings.target_modules = all_linear(model, config)
    _follow_split(model, config)
    _check_targets(model, config)
    if getattr(settings, "fan_in_fan_out", None) is False:
        matched = [module for _, module in matched_modules(model, config)]
        settings.fan_in_fan_out = bool(matched) and all(isinstance(module, Conv1D) for module in matched)
    return config


def _follow_split(model: nn.Module, config: Any) -> None:
    """Let settings that name a split layer mean all its parts."""
    if not any(isinstance(module, SplitLinear) for module in model.modules()):
        return
    for setting in ("target_modules", "exclude_modules", "feedforward_modules"):
        if names := getattr(config, setting, None):
            setattr(config, setting, split_names(model, names if isinstance(names, str) else list(names)))
    for setting in ("rank_pattern", "alpha_pattern"):
        if patterns := getattr(config, setting, None):
            setattr(config, setting, split_patterns(model, patterns))


def check_saved_modules(model: nn.Module, config: PeftConfig) -> None:
    """Refuse ``modules_to_save`` that name no module: peft would train nothing more, without a message.

    Raises:
        UserError: The message shows the nearest names.
    """
    names = [name for name, _ in model.named_modules() if name]
    for saved in getattr(config, "modules_to_save", None) or ():
        if not any(name.endswith(saved) for name in names):
            short = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
            near = the_nearest(nearest(saved, [name for name in short if not name.isdigit()]), "name")
            raise UserError(f"modules_to_save entry {saved!r} matches no module of {type(model).__name__}; {near}.")


def _default_targets(model: nn.Module, config: PeftConfig) -> list[str] | str:
    """Return the default targets of our own method, or else the attention inputs and feed-forward layers.

    Raises:
        UserError: The method has no default for this architecture.
    """
    kind = model_type(model) or ""
    targets: list[str] | str | None
    if hasattr(config, "default_targets"):
        targets = config.default_targets(kind)
    else:
        targets = list(DEFAULT_TARGETS.get(kind, [])) or "all-linear"
    if kind == "timm_wrapper" and targets == DEFAULT_TARGETS[kind] and not all(_has(model, name) for name in targets):
        targets = "all-linear"
    if targets is None:
        raise UserError(
            f"{type(config).__name__} has no default targets for {type(model).__name__}: set target_modules; its "
            f"modules have names like {_nearest_names(model, 'out_proj')}."
        )
    return targets_of_layers(model, config) if targets == "all-linear" else targets


def _has(model: nn.Module, target: str) -> bool:
    return any(_matches([target], name) for name, _ in model.named_modules())


def targets_of_layers(model: nn.Module, config: PeftConfig) -> list[str] | str:
    """Return ``all-linear``, or with ``layers_to_transform`` the full names of the linear layers in these layers.

    peft ignores ``layers_to_transform`` for ``all-linear``.

    Raises:
        UserError: No linear layer is in these layers.
    """
    wanted = _wanted_layers(config)
    if not wanted:
        return "all-linear"
    linear: list[str] = []
    adapted: tuple[str, ...] = ()
    for name, module in model.named_modules():
        base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        if isinstance(base, nn.Linear | Conv1D) and not name.startswith(adapted) and not is_special(base):
            linear.append(name)
        if base is not module:
            adapted += (f"{name}.",)
    places = {name: _layer_index(name, config) for name in linear}
    found = [name for name, index in places.items() if index in wanted]
    if not found:
        known = sorted({index for index in places.values() if index is not None})
        raise UserError(
            f"layers_to_transform is {sorted(wanted)}, but {type(model).__name__} has no linear layer there: "
            f"{_known_layers(known)}."
        )
    return found


def _wanted_layers(config: Any) -> set[int]:
    wanted = getattr(config, "layers_to_transform", None)
    return set() if wanted is None else {wanted} if isinstance(wanted, int) else set(wanted)


def _layer_index(name: str, config: Any) -> int | None:
    """Return the index of the transformer layer that holds a module, by the rules of peft."""
    patterns = getattr(config, "layers_pattern", None) or []
    patterns = [patterns] if isinstance(patterns, str) else patterns
    rules = [rf"(?:^|.*?\.){pattern}\.(\d+)\." for pattern in patterns] or [r".*?\.[^.]*\.(\d+)\."]
    found = next(filter(None, (re.match(rule, name) for rule in rules)), None)
    return None if found is None else int(found[1])


def _known_layers(known: list[int]) -> str:
    if not known:
        return "set layers_pattern to the name of the list of layers, or name target_modules"
    return f"layers {known[0]} to {known[-1]} are known"


def _adapts_linear_layers(model: nn.Module, config: PeftConfig) -> bool:
    tuners: dict[Any, Any] = dict(PEFT_TYPE_TO_TUNER_MAPPING)
    tuner = tuners.get(config.peft_type)
    default = (getattr(tuner, "target_module_mapping", None) or {}).get(model_type(model) or "")
    if default is None:
        return config.peft_type not in ("TRAINABLE_TOKENS", "LN_TUNING", "SHADOW")
    for name, module in model.named_modules():
        if _matches(default, name) and not isinstance(module, nn.Linear | Conv1D | SplitLinear):
            return False
    return True


def _matches(targets: Any, name: str) -> bool:
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _check_targets(model: nn.Module, config: PeftConfig) -> None:
    settings: Any = config
    targets = settings.target_modules
    if isinstance(targets, str) and targets.lower() == "all-linear":
        return
    names = [name for name, _ in model.named_modules() if name]
    where = type(model).__name__
    if isinstance(targets, str):
        try:
            found = any(re.fullmatch(targets, name) for name in names)
        except re.error as error:
            raise UserError(f"target_modules {targets!r} is not a valid regular expression: {error}.") from error
        if not found:
            raise UserError(
                f"target_modules {targets!r}, read as a regular expression over full names, matches no module of "
                f"{where}; names look like {_nearest_names(model, targets)}."
            )
    elif not targets:
        raise UserError(f"target_modules is empty; name modules of {where}, such as {_nearest_names(model, '')}.")
    else:
        for target in targets:
            if not _has(model, target):
                raise UserError(
                    f"target_modules entry {target!r} matches no module of {where}; "
                    f"{the_nearest(_nearest_names(model, target), 'name')}."
                )
    matched = matched_modules(model, config)
    special = next((name for name, module in matched if is_special(module)), None)
    if special is not None:
        raise UserError(
            f"target_modules matches {special}, but {type(model.get_submodule(special)).__name__} is no plain linear"
            " layer: name it in exclude_modules."
        )
    if not matched:
        raise UserError(
            f"no module of {where} is left to adapt: exclude_modules, modules_to_save or layers_to_transform exclude "
            f"every module that target_modules {targets!r} matches."
        )
    _check_layers(model, config)


def _check_layers(model: nn.Module, config: Any) -> None:
    """Refuse an index in ``layers_to_transform`` that has no target: peft would ignore it."""
    if isinstance(config.target_modules, str) or not _wanted_layers(config):
        return
    names = [name for name, _ in model.named_modules() if _matches(config.target_modules, name)]
    known = {index for index in (_layer_index(name, config) for name in names) if index is not None}
    missing = sorted(_wanted_layers(config) - known)
    if missing:
        raise UserError(
            f"layers_to_transform names layer {missing[0]}, but no target_modules are in such a layer of "
            f"{type(model).__name__}: {_known_layers(sorted(known))}."
        )


def matched_modules(model: nn.Module, config: PeftConfig) -> list[tuple[str, nn.Module]]:
    """List name and module of the modules that peft will adapt with resolved targets; empty for ``all-linear``."""
    targets = getattr(config, "target_modules", None)
    if targets is None or (isinstance(targets, str) and targets.lower() == "all-linear"):
        return []
    return [
        (name, module) for name, module in model.named_modules() if name and check_target_module_exists(config, name)
    ]


def _nearest_names(model: nn.Module, word: str) -> str:
    """Return names of linear layers that look like a word: short names, or full names for a regular expression."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    if any(mark in word for mark in ".*[(\\"):
        return nearest(word, linear, 3)
    return nearest(word, [name.rpartition(".")[2] for name in linear])

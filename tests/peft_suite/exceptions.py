"""Failures of peft's suite with our configs that are known, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from smoa_lightning.adapters import BottleneckConfig, HyperAdaptConfig, SMoAConfig, SurmConfig

Parameters = Mapping[str, Any]


def _settings(parameters: Parameters) -> Mapping[str, Any]:
    return parameters.get("config_kwargs") or {}


def _slot(parameters: Parameters) -> bool:
    return parameters.get("config_cls") is BottleneckConfig or _settings(parameters).get("slot") == "adapter"


def _smoa(parameters: Parameters) -> bool:
    return parameters.get("config_cls") is SMoAConfig


def _embeddings(parameters: Parameters) -> bool:
    ours = parameters.get("config_cls") in (SMoAConfig, SurmConfig) and not _slot(parameters)
    return ours and parameters.get("model_id") == "EmbConv1D"


def _hyperadapt(parameters: Parameters) -> bool:
    return parameters.get("config_cls") is HyperAdaptConfig


def _circulant(parameters: Parameters) -> bool:
    structure = _settings(parameters).get("structure", "circulant")
    ours = parameters.get("config_cls") is SurmConfig and not _slot(parameters)
    return ours and structure in ("circulant", "toeplitz", "toeplitz_hadamard", "ldr")


def _ours_without_settings(parameters: Parameters) -> bool:
    return parameters.get("config_cls") in (HyperAdaptConfig, SurmConfig) and not _settings(parameters)


def _slot_in_deberta(parameters: Parameters) -> bool:
    return _slot(parameters) and "deberta" in str(parameters.get("model_id"))


_MERGE = "a nonlinear map in the adapter slot cannot be merged into a weight; it is refused by name"
_FSDP = "the test trains the base weights; SMoA adapts frozen weights and refuses others by name"
_BOUND = (
    "the test loads into another random model; the adapter belongs to its base weights, and the fingerprint says so"
)
_TARGETS = "absent targets become all linear layers, and targets are checked against the model"
_STEPS = "three steps at lr 0.5 move some factors by less than its tolerance"
_RANK = "a LoRA of small rank is far from a random update of full rank"


@dataclass(frozen=True)
class Known:
    """A failure that is known.

    Attributes:
        test: Name of the test.
        fails: Parameters of the test -> whether it fails.
        why: The reason.
        always: Whether it fails for all these parameters; else it depends on random weights.
    """

    test: str
    fails: Callable[[Parameters], bool]
    why: str
    always: bool = True


KNOWN: list[Known] = [
    *(
        Known(name, _slot, _MERGE)
        for name in (
            "test_safe_merge",
            "test_merge_layers",
            "test_merge_layers_fp16",
            "test_merge_layers_is_idempotent",
            "test_merge_layers_is_deterministic_in_train_mode",
            "test_merge_layers_multi",
            "test_merge_layers_nan",
            "test_disable_adapters_with_merging",
            "test_delete_merged_adapter_raises_without_mutation",
            "test_delete_merged_adapter_only_rejects_the_merged_one",
            # these four also merge
            "test_forward_float16",
            "test_forward_bfloat16",
            "test_forward_float16_no_autocast",
            "test_forward_bfloat16_no_autocast",
        )
    ),
    Known("test_save_load_roundtrip_fsdp_wrapped", _smoa, _FSDP),
    Known("test_save_load_roundtrip_fsdp_wrapped_learnable_bias", _smoa, _FSDP),
    Known("test_only_params_are_updated", _embeddings, _STEPS, always=False),
    Known("test_loading_model_requires_grad_set_correctly", _hyperadapt, _BOUND),
    Known("test_loading_model_with_modules_to_save_requires_grad_set_correctly", _hyperadapt, _BOUND),
    Known("test_lora_conversion", _circulant, _RANK, always=False),
    Known("test_default_target_modules_not_set_raises", _ours_without_settings, _TARGETS),
    Known("test_default_target_modules_not_set_model_type_set_raises", _ours_without_settings, _TARGETS),
    Known("test_default_target_modules_list_of_str", _ours_without_settings, _TARGETS),
    Known("test_default_target_modules_str", _ours_without_settings, _TARGETS),
]
# Tests that cannot run here.
LEFT_OUT = {"test_prompt_learning_with_gradient_checkpointing": "it loads a data set from the hub"}


def reason(test: str, parameters: Parameters) -> Known | None:
    """Return the known failure that a test is expected to have, or None."""
    if _slot_in_deberta(parameters):
        return Known(test, _slot_in_deberta, "the adapter slot has no default place in DeBERTa; name target_modules")
    return next((known for known in KNOWN if known.test == test and known.fails(parameters)), None)

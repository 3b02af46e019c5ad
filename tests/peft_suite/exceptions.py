"""Failures of peft's suite with our configs that are known, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    return parameters.get("model_id") == "EmbConv1D"


def _hyperadapt(parameters: Parameters) -> bool:
    return parameters.get("config_cls") is HyperAdaptConfig


def _surm(parameters: Parameters) -> bool:
    return parameters.get("config_cls") is SurmConfig and "gpt2" in str(parameters.get("model_id"))


def _slot_in_deberta(parameters: Parameters) -> bool:
    return _slot(parameters) and "deberta" in str(parameters.get("model_id"))


def _always(parameters: Parameters) -> bool:
    return True


_MERGE = "a nonlinear map in the adapter slot cannot be merged into a weight; it is refused by name"
_FSDP = "the test trains the base weights; SMoA adapts frozen weights and refuses others by name"
_BOUND = (
    "the test loads into another random model; the adapter belongs to its base weights, and the fingerprint says so"
)
_GRADIENTS = "the installed peft trains both adapters, for LoRA too; the test is of another version"
_TARGETS = "absent targets become all linear layers, and targets are checked against the model"

# Name of a test, when it fails, reason.
KNOWN: list[tuple[str, Callable[[Parameters], bool], str]] = [
    *(
        (name, _slot, _MERGE)
        for name in (
            "test_safe_merge",
            "test_merge_layers",
            "test_merge_layers_fp16",
            "test_merge_layers_is_idempotent",
            "test_merge_layers_multi",
            "test_merge_layers_nan",
            "test_unload_adapter",
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
    ("test_save_load_roundtrip_fsdp_wrapped", _smoa, _FSDP),
    ("test_save_load_roundtrip_fsdp_wrapped_learnable_bias", _smoa, _FSDP),
    ("test_only_params_are_updated", _embeddings, "three steps at lr 0.5 move some factors by less than its tolerance"),
    ("test_loading_model_requires_grad_set_correctly", _hyperadapt, _BOUND),
    ("test_loading_model_with_modules_to_save_requires_grad_set_correctly", _hyperadapt, _BOUND),
    ("test_loading_model_requires_grad_set_correctly", _always, _GRADIENTS),
    ("test_loading_model_with_modules_to_save_requires_grad_set_correctly", _always, _GRADIENTS),
    ("test_loading_model_requires_grad_load_adapter_then_add_adapter", _always, _GRADIENTS),
    ("test_prompt_learning_with_gradient_checkpointing", _always, "it loads a data set from the hub"),
    ("test_lora_conversion", _surm, "a LoRA of small rank is far from a random update of full rank"),
    ("test_default_target_modules_not_set_raises", _always, _TARGETS),
    ("test_default_target_modules_not_set_model_type_set_raises", _always, _TARGETS),
    ("test_default_target_modules_list_of_str", _always, _TARGETS),
    ("test_default_target_modules_str", _always, _TARGETS),
]


def reason(test: str, parameters: Parameters) -> str | None:
    """Return the reason for which a test is expected to fail, or None."""
    if _slot_in_deberta(parameters):
        return "the adapter slot has no default place in DeBERTa; target_modules must name it"
    return next((why for name, fails, why in KNOWN if name == test and fails(parameters)), None)

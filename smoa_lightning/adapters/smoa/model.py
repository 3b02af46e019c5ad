"""The SMoA tuner: puts :class:`SmoaLinear` layers into a model, after peft's contract for tuners."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn
from tqdm import tqdm

from smoa_lightning.adapters.smoa.config import SMoAConfig
from smoa_lightning.adapters.smoa.layer import SmoaLinear
from smoa_lightning.adapters.smoa.state import FROZEN_STATE
from smoa_lightning.adapters.targets import DEFAULT_TARGETS
from smoa_lightning.errors import UserError


class SmoaModel(BaseTuner):
    """Adapt linear layers of a model with SMoA; made by ``peft.get_peft_model(model, SMoAConfig(...))``."""

    prefix = "smoa_"
    tuner_layer_cls = SmoaLinear
    target_module_mapping = DEFAULT_TARGETS

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        if peft_config.target_modules is None:
            peft_config.target_modules = DEFAULT_TARGETS.get(str(model_config.get("model_type")), "all-linear")
        return peft_config

    def _post_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)  # the saved file is then the same in every process

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        assert isinstance(peft_config, SMoAConfig)
        if isinstance(target, SmoaLinear):
            target.update_layer(adapter_name, peft_config)
            return
        layer = SmoaLinear(target, current_key)
        layer.set_adapter(adapter_name)
        layer.update_layer(adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)  # a further adapter is not trained before it is activated
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        setattr(parent, child_name, new_module)
        if isinstance(new_module, SmoaLinear):
            new_module.train(child.training)

    def prepare(self, adapter_name: str, show_progress: bool = True) -> None:
        """Compute the frozen state of an adapter in all layers at once (else each layer does at its first use)."""
        layers = [module for module in self.model.modules() if isinstance(module, SmoaLinear)]
        for layer in tqdm(layers, desc="subspaces", unit="layer", leave=False, delay=2, disable=not show_progress):
            layer.prepare(adapter_name)

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        """Select what is saved, after filling frozen state that no forward has needed yet."""
        selected = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        for name, module in model.named_modules():
            if not isinstance(module, SmoaLinear):
                continue
            module.prepare(adapter_name)
            for state in FROZEN_STATE:
                container, key = getattr(module, state), f"{name}.{state}.{adapter_name}"
                if adapter_name in container and key in selected:
                    selected[key] = container[adapter_name]
        return selected

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Refuse factors of another shape in one sentence before any tensor is copied."""
        remapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        own = {name: tensor.shape for name, tensor in model.state_dict().items() if f".{cls.prefix}" in name}
        for name, tensor in remapped.items():
            if isinstance(tensor, torch.Tensor) and name in own and own[name] != tensor.shape:
                raise UserError(
                    f"the adapter file does not fit: {name} has shape {tuple(tensor.shape)} in the file, but the model "
                    f"and its SMoAConfig need {tuple(own[name])}."
                )
        return remapped

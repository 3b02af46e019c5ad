"""The SMoA tuner: puts :class:`SmoaLinear` layers into a model, after peft's contract for tuners."""

from __future__ import annotations

from peft import PeftConfig
from torch import Tensor, nn
from tqdm import tqdm

from smoa_lightning.adapters.smoa.layer import SmoaLinear
from smoa_lightning.adapters.smoa.state import FROZEN_STATE
from smoa_lightning.adapters.targets import DEFAULT_TARGETS
from smoa_lightning.adapters.tuner import AdapterModel


class SmoaModel(AdapterModel):
    """Adapt linear layers of a model with SMoA; made by ``peft.get_peft_model(model, SMoAConfig(...))``."""

    prefix = "smoa_"
    tuner_layer_cls = SmoaLinear
    layer_class = SmoaLinear
    target_module_mapping = DEFAULT_TARGETS

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

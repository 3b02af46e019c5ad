"""The SURM tuner: puts :class:`SurmLinear` or :class:`SurmSlot` layers into a model, following peft's contract."""

from __future__ import annotations

from torch import nn

from smoa_lightning.adapters.surm.config import SurmConfig
from smoa_lightning.adapters.surm.layer import SurmLinear, SurmSlot
from smoa_lightning.adapters.targets import DEFAULT_TARGETS
from smoa_lightning.adapters.tuner import AdapterModel
from smoa_lightning.adapters.tuner.slot import require_slot_width


class SurmModel(AdapterModel):
    """Adapt a model with SURM; made by ``peft.get_peft_model(model, SurmConfig(...))``."""

    prefix = "surm_"
    target_module_mapping = DEFAULT_TARGETS

    def make_layer(self, target: nn.Module, name: str, config: SurmConfig) -> SurmLinear | SurmSlot:
        """Return a layer for the update slot or for the adapter slot, as configured."""
        if config.slot == "update":
            return SurmLinear(target, name)
        return SurmSlot(target, name, require_slot_width(target, self.model, name))

    def check_target(self, target: nn.Module, name: str, config: SurmConfig) -> None:
        """Refuse a module that cannot be adapted, or that has no known width for the adapter slot."""
        super().check_target(target, name, config)
        if config.slot == "adapter":
            require_slot_width(target, self.model, name)

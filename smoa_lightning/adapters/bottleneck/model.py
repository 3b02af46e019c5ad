"""The bottleneck tuner: puts :class:`BottleneckSlot` layers into a model, following peft's contract for tuners."""

from __future__ import annotations

from torch import nn

from smoa_lightning.adapters.bottleneck.config import BottleneckConfig
from smoa_lightning.adapters.bottleneck.layer import BottleneckSlot
from smoa_lightning.adapters.tuner import AdapterModel
from smoa_lightning.adapters.tuner.slot import require_slot_width


class BottleneckModel(AdapterModel):
    """Put bottleneck adapters into a model; made by ``peft.get_peft_model(model, BottleneckConfig(...))``."""

    prefix = "bottleneck_"

    def make_layer(self, target: nn.Module, name: str, config: BottleneckConfig) -> BottleneckSlot:
        """Return a slot as wide as the hidden states after the module."""
        return BottleneckSlot(target, name, require_slot_width(target, self.model, name))

    def check_target(self, target: nn.Module, name: str, config: BottleneckConfig) -> None:
        """Refuse a module that cannot be adapted or has no known width."""
        super().check_target(target, name, config)
        require_slot_width(target, self.model, name)

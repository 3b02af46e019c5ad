"""The MoRA tuner."""

from __future__ import annotations

from smoa_lightning.adapters.mora.layer import MoraLinear
from smoa_lightning.adapters.tuner import AdapterModel


class MoraModel(AdapterModel):
    """Adapt linear layers of a model with MoRA; made by ``peft.get_peft_model(model, MoraConfig(...))``."""

    prefix = "mora_"
    tuner_layer_cls = MoraLinear
    layer_class = MoraLinear

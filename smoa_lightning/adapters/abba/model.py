"""The ABBA tuner."""

from __future__ import annotations

from smoa_lightning.adapters.abba.layer import AbbaLinear
from smoa_lightning.adapters.tuner import AdapterModel


class AbbaModel(AdapterModel):
    """Adapt linear layers of a model with ABBA; made by ``peft.get_peft_model(model, AbbaConfig(...))``."""

    prefix = "abba_"
    tuner_layer_cls = AbbaLinear
    layer_class = AbbaLinear

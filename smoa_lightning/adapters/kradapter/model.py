"""The KRAdapter tuner."""

from __future__ import annotations

from smoa_lightning.adapters.kradapter.layer import KRAdapterLinear
from smoa_lightning.adapters.tuner import AdapterModel


class KRAdapterModel(AdapterModel):
    """Adapt linear layers of a model with KRAdapter; made by ``peft.get_peft_model(model, KRAdapterConfig(...))``."""

    prefix = "kradapter_"
    tuner_layer_cls = KRAdapterLinear
    layer_class = KRAdapterLinear

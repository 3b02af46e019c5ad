"""The HyperAdapt tuner."""

from __future__ import annotations

from smoa_lightning.adapters.hyperadapt.layer import HyperAdaptLinear
from smoa_lightning.adapters.tuner import AdapterModel


class HyperAdaptModel(AdapterModel):
    """Adapt linear layers of a model with HyperAdapt; made by ``peft.get_peft_model(model, HyperAdaptConfig(...))``."""

    prefix = "hyperadapt_"
    tuner_layer_cls = HyperAdaptLinear
    layer_class = HyperAdaptLinear

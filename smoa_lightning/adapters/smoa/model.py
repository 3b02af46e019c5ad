"""The SMoA tuner: puts :class:`SmoaLinear` layers into a model, following peft's contract for tuners."""

from __future__ import annotations

from smoa_lightning.adapters.smoa.layer import SmoaLinear
from smoa_lightning.adapters.targets import DEFAULT_TARGETS
from smoa_lightning.adapters.tuner import AdapterModel


class SmoaModel(AdapterModel):
    """Adapt linear layers of a model with SMoA; made by ``peft.get_peft_model(model, SMoAConfig(...))``."""

    prefix = "smoa_"
    tuner_layer_cls = SmoaLinear
    layer_class = SmoaLinear
    target_module_mapping = DEFAULT_TARGETS

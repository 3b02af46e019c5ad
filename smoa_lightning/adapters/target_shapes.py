"""The shapes of the layers that a strategy adapts, from which sizes and estimates follow."""

from __future__ import annotations

from collections import Counter

from peft import PeftConfig
from torch import nn

from smoa_lightning.adapters.inspect import target_layers
from smoa_lightning.adapters.size_patterns import own_rank_absent
from smoa_lightning.adapters.size_settings import Shapes
from smoa_lightning.adapters.target_parameters import target_parameter_shapes
from smoa_lightning.adapters.tuner import update_shape


def target_shapes(skeleton: nn.Module, config: PeftConfig, common_rank: bool = False) -> Shapes:
    """Return shape (d_out, d_in) -> number of layers with this shape that a strategy adapts.

    A module that is not a linear layer counts as a square layer of the hidden size, and a parameter of
    ``target_parameters`` as a layer of its last two sides.

    Args:
        skeleton: The backbone.
        config: The strategy.
        common_rank: Leave out the layers that ``rank_pattern`` gives a rank of their own.
    """
    hidden = getattr(getattr(skeleton, "config", None), "hidden_size", 1)
    shapes = Counter(
        update_shape(module) or (hidden, hidden)
        for name, module in target_layers(skeleton, config).items()
        if not common_rank or own_rank_absent(config, name)
    )
    shapes.update(
        shape
        for name, shape in target_parameter_shapes(skeleton, config).items()
        if not common_rank or own_rank_absent(config, name)
    )
    return shapes

"""The optimizer of a run, from its settings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from smoa_lightning.common.errors import UserError


def make_optimizer(
    factory: Callable[[list[nn.Parameter]], torch.optim.Optimizer], parameters: list[nn.Parameter]
) -> torch.optim.Optimizer:
    """Make the optimizer of parameters.

    Raises:
        UserError: The optimizer refuses one of its settings.
    """
    try:
        return factory(parameters)
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise UserError(f"model.optimizer: {' '.join(str(error).split())}") from error

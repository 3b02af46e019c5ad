"""The training mode of a network: dropout is on, and batch norm keeps the statistics of the backbone."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def training_mode(network: nn.Module) -> None:
    """Switch a network to training mode, but for its batch norm.

    In training mode, batch norm would change its running statistics with every batch, also in frozen layers. Neither an
    adapter nor a checkpoint holds them, so the loaded model would be another one. Its weights are trained like others.
    """
    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()

"""A module that trains next to nothing, and notes the batches that it is given."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule


class Witness(LightningModule):
    """Notes the batches that it is given."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["input_ids"].tolist())
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

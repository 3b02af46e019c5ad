"""``fit``, ``validate``, ``test`` and ``predict``: one training run, or the evaluation of one."""

from __future__ import annotations

import torch

from smoa_lightning.common.quiet import quiet_libraries
from smoa_lightning.training.cli import FineTuneCLI


def main(args: list[str]) -> None:
    """Run one of Lightning's subcommands."""
    quiet_libraries()
    torch.set_float32_matmul_precision("high")
    FineTuneCLI(args)

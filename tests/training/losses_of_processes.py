"""Trains several configurations and writes the loss of each optimizer step: the part of a test that each process does.

Usage: ``python losses_of_processes.py CASES OUT STOP``; with the variables of torchrun it is one of several processes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.distributed.tensor import DTensor

from smoa_lightning.common.quiet import quiet_libraries
from smoa_lightning.training.cli import FineTuneCLI


class Losses(L.Callback):
    """Collects ``train/loss`` after each optimizer step; ends the process without warning at the step ``stop``."""

    def __init__(self, out: Path, stop: int) -> None:
        self.losses: dict[int, float] = {}
        self.out, self.stop = out, stop

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write the share of the weights that this process holds."""
        weights = list(pl_module.network.parameters())
        held = sum((weight.to_local() if isinstance(weight, DTensor) else weight).numel() for weight in weights)
        share = held / sum(weight.numel() for weight in weights)
        self.out.with_name(f"share-{trainer.global_rank}.txt").write_text(str(share))

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step and trainer.global_step not in self.losses:
            self.losses[trainer.global_step] = float(trainer.callback_metrics["train/loss"])

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if self.stop and trainer.global_step == self.stop:
            if trainer.is_global_zero:
                self.out.write_text(json.dumps({"run": list(self.losses.values())}))
            trainer.strategy.barrier()
            os._exit(9)


def main(cases: Path, out: Path, stop: int = 0) -> None:
    quiet_libraries()
    found = {}
    for name, arguments in json.loads(cases.read_text()).items():
        collected = Losses(out, stop)
        FineTuneCLI(["fit", *arguments, f"--run.folder={out.parent / name}"], callbacks=[collected])
        found[name] = list(collected.losses.values())
        if os.environ.get("RANK", "0") == "0":
            print(name, found[name][-1], flush=True)
            out.write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))

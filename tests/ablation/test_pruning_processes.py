"""Pruning of a trial with several processes: the first process decides, and all end after the same step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys
from pathlib import Path
import lightning as L, torch
from smoa_lightning.ablation.execution.ledger import Pruned
from smoa_lightning.ablation.execution.pruning import TrialPruning

class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, _):
        return self.layer(batch).square().mean()
    def validation_step(self, batch, _):
        # each process has a different score, and only the score of the first is bad enough for pruning
        self.log("selection/nll", torch.tensor(float(self.global_step + 100 * self.global_rank)), sync_dist=False)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

class Trial:
    reported = []
    def report(self, value, step):
        self.reported.append((value, step))
    def should_prune(self):
        return len(self.reported) == 3

rows = torch.utils.data.DataLoader(torch.ones(32, 2), batch_size=2)  # 8 steps an epoch in each of two processes
trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=4, val_check_interval=4, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    callbacks=[TrialPruning(Trial(), "nll")])
try:
    trainer.fit(Model(), rows, rows)
    ended = "not pruned"
except Pruned as reason:
    ended = str(reason)
(Path(sys.argv[1]) / f"{trainer.global_rank}.json").write_text(json.dumps([ended, Trial.reported]))
"""


@pytest.mark.slow
def test_all_processes_end_after_the_step_at_which_the_first_is_pruned(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    # validation runs in the middle and at the end of an epoch: two scores of the first epoch, one of the second
    assert first == ["pruned at step 12", [[4.0, 4], [8.0, 8], [12.0, 12]]]
    assert second == ["pruned at step 12", []]

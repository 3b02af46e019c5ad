"""Packing through the data module and a training run."""

from __future__ import annotations

import json

import lightning as L
import pytest
import torch

from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.embedded import backbone_folder, rows
from smoa_lightning.training.module import FineTuneModule


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("piqa")
    for split, count in (("train", 200), ("validation", 8)):
        lines = [json.dumps(row) for row in rows("piqa", split)[:count]]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


def build(folder, **settings):
    backbone = BackboneConfig("local", path=str(backbone_folder()))
    module = FineTuneModule(backbone, SMoAConfig(r=4, num_subspaces=2))
    data = TaskDataModule("piqa", "local", path=str(folder), batch_size=8, **settings)
    data.tokenizer = module.tokenizer
    return module, data


def fit(module, data, **settings):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(accelerator="cpu", **quiet, **{"max_steps": 3, "limit_val_batches": 1} | settings)
    trainer.fit(module, datamodule=data)
    return trainer


def test_a_packed_step_has_the_loss_of_its_rows(folder):
    """One step over all rows: packed or not, the mean loss per target token is the same."""
    losses, tokens = [], []
    for settings in ({"packing": True, "max_length": 128}, {"packing": False}):
        module, data = build(folder, limit_train_rows=40, selection_rows=4, **settings)
        torch.manual_seed(0)
        data.batch_size = 40
        trainer = fit(module, data, max_steps=1, limit_val_batches=0)
        losses.append(float(trainer.callback_metrics["train/loss"]))
        tokens.append(module.seen_tokens)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert tokens[0] == tokens[1]
    assert len(data.train_dataloader()) == 1

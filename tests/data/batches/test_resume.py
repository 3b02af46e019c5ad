"""With Lightning: a run resumed from any checkpoint sees the same batches as an uninterrupted run."""

from __future__ import annotations

import json

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule

from ..conftest import character_tokenizer
from ..witness import Witness

# 18 training rows in batches of 4: 5 steps an epoch; two epochs
STEPS = 10
pytestmark = pytest.mark.filterwarnings(
    # the runs are far shorter than the logging interval, and the module logs nothing
    "ignore:The number of training batches",
    "ignore:.*`weights_only`",
    "ignore:Checkpoint directory",
    # a resumed run here keeps no checkpoints of its own
    "ignore:Be aware that when using `ckpt_path`",
)


class ValidatedWitness(Witness):
    def validation_step(self, batch, batch_idx):
        pass


@pytest.fixture
def path(tmp_path, rows):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def make(path, **kwargs):
    data = TaskDataModule(
        source="local", path=path, limit_train_rows=18, selection_rows=6, **{"batch_size": 4, **kwargs}
    )
    data.tokenizer = character_tokenizer()
    return data


def fit(path, checkpoint=None, callbacks=(), num_workers=0, batch_size=4, data=None, **limits):
    data = data or make(path, batch_size=batch_size, num_workers=num_workers)
    witness = ValidatedWitness()
    trainer = Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks),
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        num_sanity_val_steps=0,
        **limits,
    )
    trainer.fit(witness, datamodule=data, ckpt_path=checkpoint)
    return witness.seen


BY_EPOCH = {"max_epochs": 2}
BY_STEP = {"max_epochs": -1, "max_steps": STEPS}


@pytest.mark.parametrize(
    "limits", [BY_EPOCH, BY_STEP, {**BY_EPOCH, "val_check_interval": 2}, {**BY_STEP, "val_check_interval": 2}]
)
@pytest.mark.parametrize(
    "when",
    [
        {"every_n_train_steps": 1},
        {"every_n_epochs": 1, "save_on_train_epoch_end": True},
        {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    ],
    ids=["step", "epoch", "validation"],
)
def test_resume_from_any_checkpoint(path, tmp_path, limits, when):
    keeper = ModelCheckpoint(tmp_path / "kept", filename="{step}", save_top_k=-1, **when)
    expected = fit(path, callbacks=[keeper], **limits)
    assert len(expected) == STEPS
    checkpoints = sorted((tmp_path / "kept").glob("*.ckpt"))
    assert checkpoints
    for checkpoint in checkpoints:
        step = torch.load(checkpoint, weights_only=True)["global_step"]
        if step < STEPS:
            assert fit(path, str(checkpoint), **limits) == expected[step:]


def test_resume_with_workers(path, tmp_path):
    keeper = ModelCheckpoint(tmp_path / "kept", filename="{step}", save_top_k=-1, every_n_train_steps=3)
    expected = fit(path, callbacks=[keeper], num_workers=2, **BY_EPOCH)
    assert fit(path, str(tmp_path / "kept" / "step=3.ckpt"), num_workers=2, **BY_EPOCH) == expected[3:]


def test_resume_under_a_limit_of_batches(path, tmp_path):
    keeper = ModelCheckpoint(tmp_path / "kept", filename="{step}", save_top_k=-1, every_n_epochs=1)
    limits = {"max_epochs": 3, "limit_train_batches": 3}
    expected = fit(path, callbacks=[keeper], **limits)
    assert fit(path, str(tmp_path / "kept" / "step=3.ckpt"), **limits) == expected[3:]


def test_resume_with_another_batch_size_is_refused(path, tmp_path):
    keeper = ModelCheckpoint(tmp_path / "kept", filename="{step}", save_top_k=-1, every_n_train_steps=3)
    fit(path, callbacks=[keeper], **BY_EPOCH)
    with pytest.raises(UserError, match="batch_size 4 -> 6"):
        fit(path, str(tmp_path / "kept" / "step=3.ckpt"), batch_size=6, **BY_EPOCH)


def test_a_second_fit_starts_at_the_first_batch(path):
    data = make(path)
    assert fit(path, data=data, **BY_EPOCH) == fit(path, data=data, **BY_EPOCH)

"""Resumed streams against uninterrupted ones."""

from __future__ import annotations

import functools
import json

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.stream import StreamLoader

from ..streams import batches, loader, streaming
from ..witness import Witness


@pytest.mark.parametrize("overlong", ["error", "skip"])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("stop", [0, 1, 6, 7, 9, 10, 11, 40, 75])
def test_resumed_equals_uninterrupted(stop: int, rank: int, overlong: str) -> None:
    make = functools.partial(streaming, max_length=64 if overlong == "error" else 20, overlong=overlong)
    place = {"rank": rank, "world_size": 2}
    whole = loader(make(), **place)
    expected = batches(whole, stop + 20)
    assert (whole.stream.counts["skipped_overlong"] > 0) == (overlong == "skip")
    before = loader(make(), world_size=2)  # the state is that of the first process
    batches(before, stop)
    state = json.loads(json.dumps(before.state_dict()))
    after = loader(make(), **place)
    after.load_state_dict(state)
    assert after.state_dict() == state
    assert batches(after, 20) == expected[stop:]


def test_resuming_encodes_no_block_before_its_own() -> None:
    before = loader()
    batches(before, 45)
    after = loader()
    after.load_state_dict(before.state_dict())
    batches(after, 1)
    assert after.stream.counts["rows"] <= 40 < before.stream.counts["rows"]


def test_another_order_is_refused() -> None:
    state = loader().state_dict()
    with pytest.raises(UserError, match=r"another order of batches .*batch_size 4 -> 8"):
        loader(batch_size=8).load_state_dict(state)
    loader(epoch_batches=9).load_state_dict(state)  # a matter of the trainer alone


def fit(loader: StreamLoader, callback: Callback) -> list:
    witness = Witness()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=20,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
    )
    trainer.fit(witness, train_dataloaders=loader)
    return witness.seen


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.parametrize("epoch_batches", [7, 20])
def test_lightning_saves_the_position_that_training_is_at(epoch_batches: int) -> None:
    class State(Callback):
        """Notes the loader's state where a checkpoint would be written."""

        def __init__(self, loader):
            self.loader, self.states = loader, {}

        def on_train_batch_end(self, trainer, *args, **kwargs):
            self.states[trainer.global_step] = self.loader.state_dict()

    whole = loader(epoch_batches=epoch_batches)
    states = State(whole)
    assert fit(whole, states) == batches(loader(), 20)
    assert list(states.states) == list(range(1, 21))
    for step, state in states.states.items():
        assert state["position"] == step
        after = loader()
        after.load_state_dict(state)
        assert batches(after, 3) == batches(loader(), step + 3)[step:]

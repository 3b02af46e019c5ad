"""Callbacks keep the state of the whole training while a checkpoint is evaluated."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import lightning as L


@contextlib.contextmanager
def kept_states(trainer: L.Trainer) -> Iterator[None]:
    """Give every callback its own state back after the block.

    Lightning restores the callbacks of a checkpoint in an evaluation too. After the evaluation of the best checkpoint,
    costs and ranks would be those of the training until that checkpoint.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    states = [(callback, copy.deepcopy(callback.state_dict())) for callback in callbacks]
    yield
    for callback, state in states:
        if state:
            callback.load_state_dict(state)

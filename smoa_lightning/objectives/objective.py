"""An objective: the head of the model, and the summed loss of a batch with its number of targets.

How an item is scored is the protocol's matter (``evaluation.tasks``): one language model may score choices of a task and
replies of another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from smoa_lightning.backbones.heads import Head
from smoa_lightning.data.encoding.task_sets import TaskSets
from smoa_lightning.objectives import language_modeling

Loss = Callable[[Any, dict[str, Any]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Objective:
    """What a run minimises.

    Args:
        name: Its name, for messages and records.
        loss: Model and batch -> the summed loss of the targets of the batch, and their number. The loss of an optimizer
            step is the sum over its batches divided by the number of their targets.
        head: The head that the model needs.
    """

    name: str
    loss: Loss
    head: Head = Head()


LANGUAGE_MODELING = Objective("language_modeling", language_modeling.loss)


def objective_of(sets: TaskSets) -> Objective:
    """Return the objective of the tasks of a run."""
    return LANGUAGE_MODELING

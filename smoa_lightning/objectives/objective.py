"""An objective: the head of the model, and the summed loss of a batch with its number of targets.

The protocol of a task decides how its items are scored (``evaluation.tasks``): one language model may score the choices
of a task and the replies of another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from smoa_lightning.backbones.heads import LANGUAGE_MODEL, Head
from smoa_lightning.data.encoding.task_sets import TaskSets
from smoa_lightning.data.tasks import Classification, Regression
from smoa_lightning.objectives import language_modeling, regression, sequence_classification

Loss = Callable[[Any, dict[str, Any]], tuple[Tensor, int]]


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
    head: Head = LANGUAGE_MODEL


LANGUAGE_MODELING = Objective("language_modeling", language_modeling.loss)


def objective_of(sets: TaskSets) -> Objective:
    """Return the objective of the tasks of a run; the data module has checked that they agree."""
    protocol = next(iter(sets.trained.values())).protocol
    if isinstance(protocol, Classification):
        return Objective(
            "sequence_classification", sequence_classification.loss, Head("sequence_classification", protocol.names)
        )
    if isinstance(protocol, Regression):
        return Objective("regression", regression.loss, Head("regression", protocol.names))
    return LANGUAGE_MODELING

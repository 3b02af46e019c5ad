"""An objective: the head of the model, and the summed loss of a batch with its number of targets.

The protocol of a task decides how its items are scored (``evaluation.tasks``): one language model may score the choices
of a task and the replies of another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from smoa_lightning.backbones.heads import LANGUAGE_MODEL, Head, HeadKind
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.task_sets import TaskSets
from smoa_lightning.data.tasks import Classification, Regression
from smoa_lightning.data.tasks.base import reads_images
from smoa_lightning.objectives import classification, language_modeling, regression
from smoa_lightning.objectives.distillation import DistillationConfig, DistilledLoss

Loss = Callable[[Any, dict[str, Any]], tuple[Tensor, int]]
Divergence = Callable[[Any, Any, dict[str, Any], DistillationConfig], list[dict[str, float]]]
Distilled = Callable[[Any, Any, dict[str, Any], DistillationConfig], DistilledLoss]
Logits = Callable[[Any, dict[str, Any], DistillationConfig], Tensor]
Contents = Callable[[dict[str, Any], DistillationConfig], list[tuple[bytes, int]]]


class Cacheable(NamedTuple):
    """How the distributions of a teacher are computed for a cache, and found again.

    logits: Model, batch and settings -> (positions, columns) of the positions that count.
    contents: Batch and settings -> for each row in the order of these positions what decides its logits, and how many
        of the positions are its own.
    """

    logits: Logits
    contents: Contents


@dataclass(frozen=True)
class Objective:
    """What a run minimises.

    Args:
        name: Its name, for messages and records.
        loss: Model and batch -> the summed loss of the targets of the batch, and their number. The loss of an optimizer
            step is the sum over its batches divided by the number of their targets.
        head: The head that the model needs.
        distilled: Model, teacher, batch and settings -> the loss with a teacher, see ``objectives.distillation``;
            ``None`` for an objective that takes no teacher.
        divergence: Model, teacher, batch of scored items and settings -> ``kl`` and ``kl_positions`` of each item;
            ``None`` for an objective without distributions.
        cacheable: How its teacher is cached; ``None`` for an objective without distributions.
    """

    name: str
    loss: Loss
    head: Head = LANGUAGE_MODEL
    distilled: Distilled | None = None
    divergence: Divergence | None = None
    cacheable: Cacheable | None = None


LANGUAGE_MODELING = Objective(
    "language_modeling",
    language_modeling.loss,
    distilled=language_modeling.distilled,
    divergence=language_modeling.divergence,
    cacheable=Cacheable(language_modeling.counted_logits, language_modeling.row_contents),
)


def objective_of(sets: TaskSets) -> Objective:
    """Return the objective of the tasks of a run; the data module has checked that they agree."""
    protocol = next(iter(sets.trained.values())).protocol
    if isinstance(protocol, Classification):
        kind: HeadKind = "image_classification" if reads_images(protocol) else "sequence_classification"
        own = classification
        cacheable = Cacheable(own.counted_logits, own.row_contents)
        return Objective(kind, own.loss, Head(kind, protocol.names), own.distilled, own.divergence, cacheable)
    if isinstance(protocol, Regression):
        return Objective("regression", regression.loss, Head("regression", protocol.names), regression.distilled)
    return LANGUAGE_MODELING


def check_distillation(objective: Objective, settings: DistillationConfig) -> None:
    """Refuse settings of a teacher that mean nothing for an objective.

    Raises:
        UserError: The message names the setting.
    """
    what = objective.name.replace("_", " ")
    if objective.distilled is None:
        raise UserError(f"model.distillation is set, but {what} takes no teacher: set it to null")
    if settings.positions == "all" and objective.head.is_new:
        raise UserError(
            f"model.distillation.positions is 'all', but a row of {what} has one target: set it to response"
        )
    if settings.score and objective.divergence is None:
        raise UserError(f"model.distillation.score is true, but {what} has no distribution: set it to false")
    if settings.cache_folder is not None and objective.cacheable is None:
        raise UserError(
            f"model.distillation.cache_folder is set, but {what} has no distribution: set it to null, and the teacher "
            "is computed with each batch"
        )
    if settings.temperature != 1 and objective.head.kind == "regression":
        raise UserError(
            f"model.distillation.temperature is {settings.temperature:g}, but a number has no distribution: set it to 1"
        )

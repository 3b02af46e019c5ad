"""The loss of a module whose run may have a teacher, and the life of this teacher."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from smoa_lightning.evaluation.tasks import Divergence
from smoa_lightning.objectives import LANGUAGE_MODELING, DistillationConfig
from smoa_lightning.objectives.top_distributions import TOP
from smoa_lightning.training.scoring_module import Batch, ScoringModule
from smoa_lightning.training.teacher import Teacher, open_teacher
from smoa_lightning.training.teacher_cache import TeacherCache, open_cache

if TYPE_CHECKING:
    from smoa_lightning.training.module import FineTuneModule


class TaughtModule(ScoringModule):
    """A module with an objective whose loss may have the distributions of a teacher as a part.

    The teacher is in memory while a fit or a test needs it.
    """

    def __init__(self, distillation: DistillationConfig | None) -> None:
        super().__init__()
        self.objective = LANGUAGE_MODELING
        self.distillation = distillation
        self.teacher: Teacher | None = None  # no module, so that it is neither saved nor counted
        self.teacher_cache: TeacherCache | None = None
        self.is_rehearsal = False  # whether a plan times this fit, so that no cache is written

    @property
    @abstractmethod
    def pad_id(self) -> int | None:
        """The pad token; images have none."""

    def on_fit_end(self) -> None:
        """Release the teacher."""
        self.teacher = None

    def find_teacher(self) -> Teacher:
        """Return the teacher, found and checked; no weight is read."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.teacher = self.teacher or open_teacher(cast("FineTuneModule", self), data.encoding.max_length)
        return cast(Teacher, self.teacher)

    def load_teacher(self) -> nn.Module:
        """Load the teacher; frozen weights that it has in common with the network are in memory once."""
        return self.find_teacher().load(self.network, self.device, self.pad_id)

    def prepare_teacher(self) -> list[nn.Module]:
        """Load the teacher of a fit, which may compute packed rows; with a cache, add the rows that it lacks.

        A cache needs the teacher no longer than that.
        """
        if self.distillation is None:
            return []
        if self.distillation.cache_folder is None:
            return [self.load_teacher()]
        teacher, trainer = self.find_teacher(), self.trainer
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if self.teacher_cache is None or self.teacher_cache.data is not data:
            self.teacher_cache = open_cache(cast("FineTuneModule", self), data, str(trainer.precision))
        cache = cast(TeacherCache, self.teacher_cache)
        if self.is_rehearsal:
            cache.rehearse(self.load_teacher)
        else:
            cache.fill(trainer, self.load_teacher)
            teacher.network = teacher.network if self.distillation.score else None
        return []

    def divergence(self) -> Divergence | None:
        """Return what scores the items by the KL to the teacher, if ``model.distillation.score`` is set."""
        settings, scored = self.distillation, self.objective.divergence
        if settings is None or not settings.score or scored is None:
            return None
        loaded = None if self.teacher is None else self.teacher.network
        teacher = self.load_teacher() if loaded is None else loaded
        return lambda network, batch: scored(network, teacher, batch, settings)

    def on_test_end(self) -> None:
        """Release the teacher: its weights may be shared with a network that training changes."""
        self.teacher = None

    def summed_loss(self, batch: Batch) -> tuple[Tensor, int, Mapping[str, Tensor]]:
        """Return the summed loss of a micro-batch, the number of its targets, and the sums of its terms for the log."""
        if self.distillation is None:
            return *self.objective.loss(self.network, batch), {}
        assert self.teacher is not None
        assert self.objective.distilled is not None
        teacher = self.teacher.network
        if self.teacher_cache is not None:
            teacher, batch = None, batch | {TOP: self.teacher_cache.of(batch, self.device)}
        return self.objective.distilled(self.network, teacher, batch, self.distillation)

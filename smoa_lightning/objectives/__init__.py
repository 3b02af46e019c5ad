"""Objectives: what a run minimises, and the head that its backbone needs for it."""

from smoa_lightning.objectives.distillation import DistillationConfig
from smoa_lightning.objectives.objective import LANGUAGE_MODELING, Objective, objective_of

__all__ = ["LANGUAGE_MODELING", "DistillationConfig", "Objective", "objective_of"]

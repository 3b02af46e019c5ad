"""Callbacks of a run, one in each file; they write only to the folder of the run."""

from smoa_lightning.training.callbacks.adapter_checkpoint import AdapterCheckpoint
from smoa_lightning.training.callbacks.cost_monitor import CostMonitor
from smoa_lightning.training.callbacks.forgetting import Forgetting
from smoa_lightning.training.callbacks.item_scores import ItemScores
from smoa_lightning.training.callbacks.pictures import Pictures
from smoa_lightning.training.callbacks.rank_monitor import RankMonitor
from smoa_lightning.training.callbacks.sample_predictions import SamplePredictions

__all__ = [
    "AdapterCheckpoint",
    "CostMonitor",
    "Forgetting",
    "ItemScores",
    "Pictures",
    "RankMonitor",
    "SamplePredictions",
]

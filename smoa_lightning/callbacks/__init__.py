"""One callback a file; each does one thing during a run and writes only into the run's folder."""

from smoa_lightning.callbacks.adapter_checkpoint import AdapterCheckpoint
from smoa_lightning.callbacks.cost_monitor import CostMonitor
from smoa_lightning.callbacks.forgetting import Forgetting
from smoa_lightning.callbacks.item_scores import ItemScores
from smoa_lightning.callbacks.rank_monitor import RankMonitor
from smoa_lightning.callbacks.sample_predictions import SamplePredictions

__all__ = ["AdapterCheckpoint", "CostMonitor", "Forgetting", "ItemScores", "RankMonitor", "SamplePredictions"]

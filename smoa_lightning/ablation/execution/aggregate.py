"""One TensorBoard run for each cell, with means and intervals over its seeds and a row of the HPARAMS tab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from smoa_lightning.ablation.execution.folders import CELLS
from smoa_lightning.ablation.statistics import mean_interval
from smoa_lightning.ablation.study.space import Cell
from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.records.hparams import CURVES, mean_hyperparameters, mean_metrics, study_columns
from smoa_lightning.records.tensorboard_tags import tag_of
from smoa_lightning.training.loggers.contents import Table
from smoa_lightning.training.loggers.hparams_entry import entry


def write_cell(folder: Path, cell: Cell, records: Sequence[Mapping[str, Any]]) -> None:
    """Write the aggregate of a cell; an earlier aggregate is replaced.

    ``final/*`` are means over seeds. They have the same names as in the runs, so that the HPARAMS tab shows both.
    ``seeds/<metric>`` has the score of each seed, the table ``interval/<metric>`` the mean with its 95 % t-interval.

    Args:
        folder: The study folder.
        cell: The cell.
        records: Records of the cell's final runs.
    """
    scores = [float(record["metrics"][f"report/{cell.report_metric}"]) for record in records]
    estimate = mean_interval(scores)
    means = mean_metrics([record["metrics"] for record in records])
    facts = mean_hyperparameters([record.get("hyperparameters", {}) for record in records])
    facts |= study_columns({"cell": cell.name, "stage": "mean", "axes": cell.labels})
    facts["ablation/seeds"] = len(records)
    interval = {"mean": estimate.value, "95 % low": estimate.low, "95 % high": estimate.high}
    row = ["" if value is None else f"{value:.4f}" for value in interval.values()]
    table = Table(f"interval/{cell.report_metric}", [*interval, "seeds"], [[*row, str(len(records))]])
    with replacing(folder / CELLS / cell.name) as temporary, SummaryWriter(str(temporary)) as writer:
        for step, score in enumerate(scores if len(scores) > 1 else []):
            writer.add_scalar(f"seeds/{cell.report_metric}", score, step)
        writer.add_text(table.name, table.markdown(), 0)
        for summary in entry(facts | means, map(tag_of, CURVES)):
            assert writer.file_writer is not None
            writer.file_writer.add_summary(summary)

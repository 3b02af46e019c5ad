"""Measured plans, and the files of runs that a worker has done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from smoa_lightning.ablation.execution.folders import MARK
from smoa_lightning.ablation.planning import estimate
from smoa_lightning.ablation.planning.cell_cost import CellCost
from smoa_lightning.ablation.study.space import Run, Study


def measured(study: Study, folder: Path, workers: int = 1) -> list[CellCost]:
    return estimate.measure(study, folder, workers)


def finish(
    folder: Path, run: Run, seconds: float, score: float = 0.5, right: Sequence[bool] = (), status: str = "finished"
) -> None:
    """Write the files of a run that a worker has done."""
    place = folder / ("runs" if run.stage == "final" else "search") / run.name
    place.mkdir(parents=True)
    (place / MARK).write_text(run.signature)
    facts = {"cell": run.cell.name, "stage": run.stage, "seed": run.seed, "trial": run.trial, "seconds": seconds,
             "parameters": dict(run.parameters), "signature": run.signature}  # fmt: skip
    record = {"name": run.name, "signature": "", "status": status, "metrics": {"report/acc": score}, "ablation": facts}
    (place / "record.json").write_text(json.dumps(record))
    items = [{"row": row, "label": 1, "prediction_acc": int(yes)} for row, yes in enumerate(right)]
    (place / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))

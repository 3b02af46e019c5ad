"""The runs of a study as data, for ``ablate --plan``, which adds parameters and times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smoa_lightning.ablation.study.space import Study
from smoa_lightning.records.record import flat


@dataclass(frozen=True)
class PlanRow:
    """One cell of a plan.

    Attributes:
        cell: Name of the cell.
        signature: Hash of its settings.
        labels: Axis -> label.
        settings: Full key -> value of the settings that differ between cells; keys that the cell sets.
        final_runs: Number of final runs.
        search_runs: Number of search runs without pruning.
        searched: Full keys of the searched settings.
        baseline: Name of its baseline; for a baseline its own name; empty without a baseline.
        metric: Metric of the final runs.
    """

    cell: str
    signature: str
    labels: Mapping[str, str]
    settings: Mapping[str, Any]
    final_runs: int
    search_runs: int
    searched: tuple[str, ...]
    baseline: str
    metric: str


@dataclass(frozen=True)
class Plan:
    """All cells and runs of a study.

    Attributes:
        study: Name of the study.
        rows: One row for each cell.
        shared: Full key -> value of the settings that are the same in all cells.
        dropped: Names of the dropped combinations.
        seeds: Seeds of the final runs.
        search_seeds: Seeds of the trials, empty without a search.
        trials: Trials of each cell, 0 without a search.
        budget: Required trainable parameters of every cell, ``None`` without a budget.
        direction: Better direction of the metric: ``maximize`` or ``minimize``.
        margins: Metric -> largest difference that does not matter, in the unit of reports.
        secondary: Further metrics of the report.
        beyond: Most trials of a cell beyond the ends of its ranges.
    """

    study: str
    rows: tuple[PlanRow, ...]
    shared: Mapping[str, Any] = field(repr=False)
    dropped: tuple[str, ...]
    seeds: tuple[int, ...]
    search_seeds: tuple[int, ...]
    trials: int
    budget: Any
    direction: str
    margins: Mapping[str, float] = field(default_factory=dict)
    secondary: tuple[str, ...] = ()
    beyond: int = 0

    @property
    def final_runs(self) -> int:
        """Number of final runs."""
        return sum(row.final_runs for row in self.rows)

    @property
    def search_runs(self) -> int:
        """Number of search runs without pruning."""
        return sum(row.search_runs for row in self.rows)

    @property
    def runs(self) -> int:
        """Number of all runs."""
        return self.final_runs + self.search_runs


def plan(study: Study) -> Plan:
    """Return all cells and runs of a study."""
    contents = {cell.name: flat(study.resolver.content(cell.settings)) for cell in study.cells}
    first = next(iter(contents.values()))
    shared = {k: v for k, v in first.items() if all(k in c and c[k] == v for c in contents.values())}
    search = study.search
    rows = tuple(
        PlanRow(
            cell=cell.name,
            signature=cell.signature,
            labels=cell.labels,
            settings={k: v for k, v in contents[cell.name].items() if k not in shared},
            final_runs=len(study.seeds),
            search_runs=search.trials * len(search.seeds) if search else 0,
            searched=tuple(parameter.key for parameter in cell.parameters),
            baseline=study.baselines.get(cell.name, ""),
            metric=cell.report_metric,
        )
        for cell in study.cells
    )
    return Plan(
        study=study.name,
        rows=rows,
        shared=shared,
        dropped=study.dropped,
        seeds=study.seeds,
        search_seeds=search.seeds if search else (),
        trials=search.trials if search else 0,
        beyond=search.extend.trials if search and search.extend else 0,
        budget=study.budget,
        direction=str(study.objective.direction),
        margins=study.margins,
        secondary=study.secondary,
    )

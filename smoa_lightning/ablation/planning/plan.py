"""What a study will run, as data: for ``ablate --plan``, which adds parameters and times to it."""

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
        settings: Full key -> value of what is not the same in all cells; a key that a cell does not set is not there.
        final_runs: How many final runs it has.
        search_runs: How many search runs it has, before any is pruned.
        searched: Full keys of what is searched.
        baseline: The cell that it is compared with, itself for a baseline; empty without one.
        metric: The metric of its final runs.
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
        study: Its name.
        rows: One a cell.
        shared: Full key -> value of the settings that all cells have.
        dropped: Names of the combinations that are left out.
        seeds: Seeds of the final runs.
        search_seeds: Seeds of the trials, empty without a search.
        trials: Trials of each cell, 0 without a search.
        budget: Trainable parameters that every cell has to meet, ``None`` for none.
        direction: Which direction of the metric is better.
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

    @property
    def final_runs(self) -> int:
        """How many final runs there are."""
        return sum(row.final_runs for row in self.rows)

    @property
    def search_runs(self) -> int:
        """How many search runs there are, before any is pruned."""
        return sum(row.search_runs for row in self.rows)

    @property
    def runs(self) -> int:
        """How many runs there are in all."""
        return self.final_runs + self.search_runs


def plan(study: Study) -> Plan:
    """Return what a study will run."""
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
        budget=study.budget,
        direction=str(study.objective.direction),
    )

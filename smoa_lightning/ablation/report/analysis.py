"""All numbers of a report, computed from the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from smoa_lightning.ablation.report.cells import CellResult, cell_result
from smoa_lightning.ablation.report.comparisons import Comparison, Judgement, with_base_model, with_baselines
from smoa_lightning.ablation.report.contrasts import PlannedContrast, planned_contrasts
from smoa_lightning.ablation.report.folder import BaseModelScore, StudyFolder
from smoa_lightning.ablation.report.trade_off import ByMetric, TradeOffResult, trade_off
from smoa_lightning.ablation.statistics import GridEffects, grid_effects


@dataclass(frozen=True)
class Analysis:
    """All numbers of a report.

    Args:
        study: The study folder.
        direction: ``maximize`` or ``minimize``.
        cells: Cells in the order of the study.
        comparisons: Comparisons of cells with their baselines.
        incomparable: Why other cells cannot be compared, one sentence each.
        grid: Main effects and interactions; ``None`` if fewer than two axes vary.
        gains: Comparisons of cells with the base model, if the base model was scored.
        contrasts: Planned contrasts of the study.
        secondary: Secondary metric -> the same numbers by it, with corrections of their own.
        trade_off: A cost at equal scores; ``None`` if the study declares none, or its metrics were not measured.
    """

    study: StudyFolder
    direction: str
    cells: tuple[CellResult, ...]
    comparisons: tuple[Comparison, ...]
    incomparable: tuple[str, ...]
    grid: GridEffects | None
    gains: tuple[Comparison, ...]
    contrasts: tuple[PlannedContrast, ...] = ()
    secondary: Mapping[str, Analysis] = field(default_factory=dict)
    trade_off: TradeOffResult | None = None

    @property
    def margin(self) -> float | None:
        """Largest difference that does not matter, in the unit of reports; ``None`` without one."""
        margin: float | None = self.study.description.get("margin")
        return margin

    @property
    def scored(self) -> tuple[CellResult, ...]:
        """The cells with a finished run."""
        return tuple(cell for cell in self.cells if cell.runs)

    def comparison(self, cell: str) -> Comparison | None:
        """Return the comparison of a cell."""
        return next((each for each in self.comparisons if each.cell == cell), None)

    @property
    def base_models(self) -> list[tuple[BaseModelScore, list[CellResult]]]:
        """The scores of the base models, each with the cells that share it."""
        groups: dict[int, tuple[BaseModelScore, list[CellResult]]] = {}
        for cell in self.cells:
            base = self.study.base_models.get(cell.name)
            if base is not None:
                groups.setdefault(id(base), (base, []))[1].append(cell)
        return list(groups.values())


def analyse(study: StudyFolder) -> Analysis:
    """Compute all numbers of a report."""
    found = {name: _by_objective(study.by_metric(name)) for name in study.description.get("secondary", [])}
    main = replace(_by_objective(study), secondary={name: each for name, each in found.items() if each.scored})
    return replace(main, trade_off=_trade_off(main))


def _trade_off(main: Analysis) -> TradeOffResult | None:
    """Return the trade-off of the study, from its objective and its secondary metrics."""
    described = main.study.description
    own = {main.scored[0].metric: main, **main.secondary}
    plan = described.get("trade_off")
    if plan is None or not {plan["cost"], plan["at"]} <= own.keys():
        return None
    cost, at = (ByMetric(own[plan[key]].cells, own[plan[key]].study.base_models) for key in ("cost", "at"))
    return trade_off(described, cost, at)


def _by_objective(study: StudyFolder) -> Analysis:
    description = study.description
    direction = str(description["objective"]["direction"])
    cells = tuple(cell_result(name, facts, study) for name, facts in description["cells"].items())
    judge = Judgement(direction, description.get("margin"))
    comparisons, incomparable = with_baselines(cells, description["baselines"], judge)
    gains = with_base_model(cells, study.base_models, judge)
    contrasts, more = planned_contrasts(cells, description.get("contrasts", {}), judge)
    refused = (*incomparable, *more)
    return Analysis(study, direction, cells, comparisons, refused, _grid(cells), gains, contrasts)


def _grid(cells: Sequence[CellResult]) -> GridEffects | None:
    """Return main effects and interactions, if at least two axes vary and all cells have the same metric."""
    scored = [cell for cell in cells if cell.runs]
    axes = [axis for axis in (scored[0].labels if scored else ()) if len({c.labels[axis] for c in scored}) > 1]
    if len(axes) < 2 or len({cell.metric for cell in scored}) > 1:
        return None
    runs = [(cell, run) for cell in scored for run in cell.runs]
    levels = {axis: [cell.labels[axis] for cell, _ in runs] for axis in axes}
    return grid_effects([run.score for _, run in runs], levels, [run.seed for _, run in runs])

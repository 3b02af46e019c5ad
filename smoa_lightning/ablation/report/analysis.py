"""From runs to numbers: all that a report says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smoa_lightning.ablation.report.cells import CellResult, cell_result
from smoa_lightning.ablation.report.comparisons import Comparison, with_baselines, with_untouched
from smoa_lightning.ablation.report.folder import StudyFolder, Untouched
from smoa_lightning.ablation.statistics import GridEffects, grid_effects


@dataclass(frozen=True)
class Analysis:
    """All numbers of a report.

    Args:
        study: The folder.
        direction: ``maximize`` or ``minimize``.
        cells: In the order of the study.
        comparisons: Of the cells that can be compared.
        incomparable: Why others cannot, one sentence each.
        grid: Main effects and interactions, where the axes make a grid.
        gains: Of the cells whose untouched backbone was scored, their differences from it.
    """

    study: StudyFolder
    direction: str
    cells: tuple[CellResult, ...]
    comparisons: tuple[Comparison, ...]
    incomparable: tuple[str, ...]
    grid: GridEffects | None
    gains: tuple[Comparison, ...]

    @property
    def scored(self) -> tuple[CellResult, ...]:
        """The cells that have a run."""
        return tuple(cell for cell in self.cells if cell.runs)

    def comparison(self, cell: str) -> Comparison | None:
        """Return the comparison of a cell."""
        return next((each for each in self.comparisons if each.cell == cell), None)

    @property
    def untouched(self) -> list[tuple[Untouched, list[CellResult]]]:
        """The scores of the untouched backbone, each with the cells that share it."""
        found: dict[int, tuple[Untouched, list[CellResult]]] = {}
        for cell in self.cells:
            base = self.study.untouched.get(cell.name)
            if base is not None:
                found.setdefault(id(base), (base, []))[1].append(cell)
        return list(found.values())


def analyse(study: StudyFolder) -> Analysis:
    """Compute everything that a report says."""
    description = study.description
    direction = str(description["objective"]["direction"])
    cells = tuple(cell_result(name, facts, study) for name, facts in description["cells"].items())
    comparisons, incomparable = with_baselines(cells, description["baselines"], direction)
    gains = with_untouched(cells, study.untouched, direction)
    return Analysis(study, direction, cells, comparisons, incomparable, _grid(cells), gains)


def _grid(cells: Sequence[CellResult]) -> GridEffects | None:
    """Main effects and interactions, where at least two axes vary and all cells have one metric."""
    scored = [cell for cell in cells if cell.runs]
    axes = [axis for axis in (scored[0].labels if scored else ()) if len({c.labels[axis] for c in scored}) > 1]
    if len(axes) < 2 or len({cell.metric for cell in scored}) > 1:
        return None
    runs = [(cell, run) for cell in scored for run in cell.runs]
    levels = {axis: [cell.labels[axis] for cell, _ in runs] for axis in axes}
    return grid_effects([run.score for _, run in runs], levels, [run.seed for _, run in runs])

"""The cells and runs of a study. This file executes nothing and imports no torch.

A study is a grid of *cells*: all combinations of its axes' values, without the dropped ones. A cell with a seed is a
*final run*. With a search, a cell with a trial's values and a seed is a *search run*. A run has a command line of
``fit`` and a signature: the hash of all settings that decide its result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from smoa_lightning.ablation.study.axes import Axis
from smoa_lightning.ablation.study.objective import Objective
from smoa_lightning.ablation.study.parameters import Parameter
from smoa_lightning.ablation.study.search_space import Search
from smoa_lightning.ablation.study.study_file import Keep
from smoa_lightning.ablation.study.trade_off import TradeOff
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.configuration.composition import Composer, Settings

Stage = Literal["final", "search"]

# The trials of a search never see the report rows, and do not need a score of the base model.
STAGE_FLAGS: dict[Stage, dict[str, Any]] = {"final": {}, "search": {"run.score_base": False, "run.score_report": False}}


@dataclass(frozen=True)
class Cell:
    """One combination of the axes' values.

    Attributes:
        name: ``partition=spectral_blocks,r=8``; unique in the study, and valid as the name of a folder.
        labels: Axis -> label of its value.
        values: Axis -> its value, for figures; the label if the value is not plain.
        files: Configuration files, the base first.
        flags: Full configuration key -> value; replaces the settings of the files.
        settings: Composed settings of files and flags.
        signature: Hash of the settings that decide the result; independent of how they are written.
        parameters: The searched settings; empty without a search.
        report_metric: Metric of the final runs, without the part.
        search_metric: Metric of the trials; empty without a search.
        content: Digest of the local files that the cell reads, see ``local_files``; empty if it reads none.
    """

    name: str
    labels: Mapping[str, str]
    values: Mapping[str, Any]
    files: tuple[Path, ...]
    flags: Mapping[str, Any] = field(repr=False)
    settings: Settings = field(repr=False)
    signature: str
    parameters: tuple[Parameter, ...] = field(default=(), repr=False)
    report_metric: str = ""
    search_metric: str = ""
    content: str = ""

    @property
    def scoring_teacher(self) -> dict[str, Any] | None:
        """The teacher that the items are scored against, and the positions that count; None without one."""
        settings = (self.settings.get("model") or {}).get("distillation") or {}
        return {key: settings.get(key) for key in ("teacher", "positions")} if settings.get("score") else None


@dataclass(frozen=True)
class Run:
    """One fit.

    Attributes:
        cell: The cell of the run.
        stage: ``final``, scored on the report rows, or ``search``, scored only on the selection rows.
        seed: Its seed in the study: ``seed_everything`` without the ``seed_offset`` of the cell.
        trial: Number of the trial for a search run, ``None`` for a final run.
        parameters: Full configuration key -> searched value: of the trial, or of the best trial for a final run.
        name: ``<cell>,seed=0`` or ``<cell>,trial=3,seed=1000``.
        arguments: Arguments of ``fit``.
        signature: Hash of all settings that decide the result. It is the same for the same run in different studies and
            for any trial number. It differs between final and search runs, since only final runs are reported.
    """

    cell: Cell
    stage: Stage
    seed: int
    trial: int | None
    parameters: Mapping[str, Any]
    name: str
    arguments: tuple[str, ...] = field(repr=False)
    signature: str


@dataclass(frozen=True)
class Contrast:
    """A planned contrast: a weighted sum of cells with weights that sum to zero.

    Attributes:
        name: Its name in the study file, with the rows if the study has several.
        above: What has positive weights, in words.
        below: What it is compared with, in words.
        weights: Name of a cell -> its weight; only cells with a weight.
        cells: Names of all cells with the same report rows.
        declared: Both sides in words as declared, also with labels of which no cell is left.
    """

    name: str
    above: str
    below: str
    weights: Mapping[str, float]
    cells: tuple[str, ...]
    declared: tuple[str, str]


@dataclass(frozen=True)
class Study:
    """An expanded study.

    Attributes:
        name: Name of the study and its folder.
        axes: The axes.
        cells: Cells in the order of the file; the last axis changes fastest.
        dropped: Names of the combinations that the conditions drop.
        seeds: Seeds of the final runs.
        baselines: Name of a cell -> name of its baseline; empty without a baseline. Each set of report rows has its own
            baseline.
        objective: The metric that compares cells.
        budget: Required trainable parameters of every cell, in the form of ``model.budget``; ``None`` without a budget.
        search: The search of each cell, ``None`` without a search.
        retries: How often a failed run is tried again.
        keep: Whether finished runs keep their best adapter: ``best`` or ``none``.
        resolver: Composes settings.
        margins: Metric -> largest difference that does not matter, in the unit of reports; the name of the objective is
            empty if the cells have different metrics.
        secondary: Further metrics of the report, without the part.
        contrasts: Planned contrasts, from ``contrasts.parse_contrasts``.
        trade_off: What is compared at equal scores; ``None`` for nothing.
        sources: The sources that were decided for the cells, see ``sources``; ``None`` if each run decides.
        contents: Digests of the local files that the cells read, see ``local_files``.
    """

    name: str
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    dropped: tuple[str, ...]
    seeds: tuple[int, ...]
    baselines: Mapping[str, str]
    objective: Objective
    budget: Any
    search: Search | None
    retries: int
    keep: Keep
    resolver: Composer = field(repr=False)
    margins: Mapping[str, float] = field(default_factory=dict)
    secondary: tuple[str, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    trade_off: TradeOff | None = None
    sources: Mapping[str, Mapping[str, Any]] | None = None
    contents: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict, repr=False)

    def cell(self, name: str) -> Cell:
        """Return a cell by its name.

        Raises:
            UserError: There is no such cell; the message names the nearest cell.
        """
        found = next((cell for cell in self.cells if cell.name == name), None)
        if found is None:
            near = nearest(name, [cell.name for cell in self.cells], 1)
            raise UserError(f"study {self.name} has no cell {name!r}; the nearest is {near}")
        return found

    def final_run(self, cell: Cell, seed: int, parameters: Mapping[str, Any] | None = None) -> Run:
        """Return the final run of a cell with a seed.

        Args:
            cell: A cell of the study.
            seed: A seed of the study.
            parameters: Full key -> value of the best trial; needed if the study has a search.

        Raises:
            UserError: The keys of ``parameters`` are not the searched settings of the cell.
        """
        return self._run(cell, "final", seed, None, parameters or {})

    def search_run(self, cell: Cell, trial: int, seed: int, parameters: Mapping[str, Any]) -> Run:
        """Return the run of a trial with a seed of the search.

        Args:
            cell: A cell of the study.
            trial: Number of the trial.
            seed: A seed of the search.
            parameters: Full key -> value of each searched setting of the cell.

        Raises:
            UserError: The keys of ``parameters`` are not the searched settings of the cell.
        """
        return self._run(cell, "search", seed, trial, parameters)

    def final_runs(self, best: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[Run]:
        """Yield all final runs, cell by cell and seed by seed.

        Args:
            best: Name of a cell -> values of its best trial; needed if the study has a search.
        """
        for cell in self.cells:
            for seed in self.seeds:
                yield self.final_run(cell, seed, (best or {}).get(cell.name))

    def _run(self, cell: Cell, stage: Stage, seed: int, trial: int | None, parameters: Mapping[str, Any]) -> Run:
        wanted = {parameter.key for parameter in cell.parameters}
        if wanted != parameters.keys():
            expected, got = (", ".join(sorted(keys)) or "nothing" for keys in (wanted, parameters))
            raise UserError(f"the search of cell {cell.name} needs values of {expected}, but got {got}")
        offset = int(cell.flags.get("seed_everything") or 0)  # the ``seed_offset`` of an axis
        own = {**parameters, "seed_everything": offset + seed}
        settings = self.resolver.settings(cell.files, {**cell.flags, **own})
        name = f"{cell.name},seed={seed}" if trial is None else f"{cell.name},trial={trial},seed={seed}"
        arguments = command_line(cell.files, {**cell.flags, **own, **STAGE_FLAGS[stage]})
        return Run(
            cell, stage, seed, trial, dict(parameters), name, arguments, self.resolver.signature(settings, stage=stage)
        )


def command_line(files: Sequence[Path], flags: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the arguments of ``fit`` for files and flags: ``--config FILE`` and ``--KEY=VALUE``.

    Keys are sorted, so that a class comes before its settings. Texts are written unchanged, other values as JSON.

    >>> command_line([], {"model.adapter.init_args.r": 4, "data.task": "piqa", "data.path": None})
    ('--data.path=null', '--data.task=piqa', '--model.adapter.init_args.r=4')
    """
    words = [word for file in files for word in ("--config", str(file))]
    for key in sorted(flags):
        value = flags[key]
        words.append(f"--{key}={value if isinstance(value, str) else json.dumps(value)}")
    return tuple(words)

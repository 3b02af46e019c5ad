"""From a study file to its cells and runs. Nothing here is executed, and no torch is imported.

A study is a grid of *cells*: every combination of its axes' values but those that are dropped. A cell with a seed is a
*final run*; with a search, a cell with a trial's values and a seed is a *search run*. A run is a command line of
``fit`` and a signature of what decides its result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from smoa_lightning.ablation.study.axes import Axis
from smoa_lightning.ablation.study.objective import Objective
from smoa_lightning.ablation.study.search_space import Parameter, Search
from smoa_lightning.ablation.study.study_file import Keep
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.configuration.composition import Composer, Settings

Stage = Literal["final", "search"]

# The trials of a search never see the report rows; scoring the untouched backbone for each would be a waste.
STAGE_FLAGS: dict[Stage, dict[str, Any]] = {"final": {}, "search": {"run.score_base": False, "run.score_report": False}}


@dataclass(frozen=True)
class Cell:
    """One combination of the axes' values.

    Attributes:
        name: ``partition=spectral_blocks,r=8``; unique in the study, fit for a folder.
        labels: Axis -> label of its value.
        values: Axis -> its value, for figures; the label where it is no plain value.
        files: Configuration files, the base first.
        flags: Full configuration key -> value, over the files.
        settings: What files and flags come to.
        signature: Hash of the settings that decide the result, whatever they were written in.
        parameters: What its search goes over; empty without a search.
        report_metric: The metric of the final runs, without the part.
        search_metric: The metric of the trials; empty without a search.
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


@dataclass(frozen=True)
class Run:
    """One fit.

    Attributes:
        cell: Its cell.
        stage: ``final``, scored on the report rows, or ``search``, scored on the selection rows alone.
        seed: ``seed_everything``.
        trial: Number of the trial of a search run, ``None`` for a final one.
        parameters: Full configuration key -> value that a search chose: the trial's, or the best one's.
        name: ``<cell>,seed=0`` or ``<cell>,trial=3,seed=1000``.
        arguments: What stands after ``fit``.
        signature: Hash of what decides the result. The same in every study in which the run is the same, whatever its
            trial is called; other for a final and for a search run, since only one of them is reported.
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
class Study:
    """A study, expanded.

    Attributes:
        name: Name of its folder.
        axes: The axes.
        cells: In the order of the file, the last axis changing fastest.
        dropped: Names of the combinations that its conditions drop.
        seeds: Seeds of the final runs.
        baselines: Name of a cell -> name of the cell that it is compared with; empty without a baseline. There is one
            for each set of rows that cells are reported on.
        objective: The metric that cells are compared by.
        budget: Trainable parameters that every cell has to meet, as ``model.budget`` takes them; ``None`` for none.
        search: The search of each cell, ``None`` for none.
        retries: How often a failed run is tried again.
        keep: Whether finished runs keep their best adapter: ``best`` or ``none``.
        resolver: Composes settings.
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

    def cell(self, name: str) -> Cell:
        """Return a cell by its name.

        Raises:
            UserError: There is none; names the nearest.
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
            seed: One of its seeds.
            parameters: Full key -> value of the best trial; needed where the study has a search.

        Raises:
            UserError: A value for something that is not searched, or a searched setting without one.
        """
        return self._run(cell, "final", seed, None, parameters or {})

    def search_run(self, cell: Cell, trial: int, seed: int, parameters: Mapping[str, Any]) -> Run:
        """Return the run of a trial with a seed of the search.

        Args:
            cell: A cell of the study.
            trial: Number of the trial.
            seed: One of the search's seeds.
            parameters: Full key -> value of each of the cell's parameters.

        Raises:
            UserError: As for a final run.
        """
        return self._run(cell, "search", seed, trial, parameters)

    def final_runs(self, best: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[Run]:
        """Yield all final runs, cell by cell and seed by seed.

        Args:
            best: Name of a cell -> values of its best trial, where the study has a search.
        """
        for cell in self.cells:
            for seed in self.seeds:
                yield self.final_run(cell, seed, (best or {}).get(cell.name))

    def _run(self, cell: Cell, stage: Stage, seed: int, trial: int | None, parameters: Mapping[str, Any]) -> Run:
        wanted = {parameter.key for parameter in cell.parameters}
        if wanted != parameters.keys():
            expected, got = (", ".join(sorted(keys)) or "nothing" for keys in (wanted, parameters))
            raise UserError(f"cell {cell.name} is searched over {expected}, but was given {got}")
        own = {**parameters, "seed_everything": seed}
        settings = self.resolver.settings(cell.files, {**cell.flags, **own})
        name = f"{cell.name},seed={seed}" if trial is None else f"{cell.name},trial={trial},seed={seed}"
        arguments = command_line(cell.files, {**cell.flags, **own, **STAGE_FLAGS[stage]})
        return Run(
            cell, stage, seed, trial, dict(parameters), name, arguments, self.resolver.signature(settings, stage=stage)
        )


def command_line(files: Sequence[Path], flags: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the arguments of ``fit`` for files and flags: ``--config FILE`` and ``--KEY=VALUE``.

    Keys are sorted, so that a class stands before its own settings. Text stands as it is, anything else as JSON.

    >>> command_line([], {"model.adapter.init_args.r": 4, "data.task": "piqa", "data.path": None})
    ('--data.path=null', '--data.task=piqa', '--model.adapter.init_args.r=4')
    """
    words = [word for file in files for word in ("--config", str(file))]
    for key in sorted(flags):
        value = flags[key]
        words.append(f"--{key}={value if isinstance(value, str) else json.dumps(value)}")
    return tuple(words)

"""Study files: their keys, and how later files and flags change earlier files.

    name: rank                                   # default: the name of the file
    base: [experiments/piqa.yaml]                # relative to the study file, or to the working directory
    axes:
      r: [4, 8, 16]                              # a configuration key, whole or its last words
      adapter: [experiments/adapters/lora.yaml]  # files; their names are the labels
      mechanism:                                 # labels and their settings; 'config' adds files
        - hira: {partition: none, num_subspaces: 1}
        - blocks: {partition: spectral_blocks, optimizer.lr: 2.0e-2}
    zip: [[r, alpha]]                            # axes that change together
    drop: [{partition: none, num_subspaces: '>1'}]  # see conditions.py
    baseline: {mechanism: hira, r: 8}
    objective: {metric: acc, direction: maximize}
    secondary: [expected_acc]                    # further metrics of the report, each a family of tests of its own
    margin: 1.0                                  # differences below 1.0 points (of an accuracy) do not matter;
                                                 # or {acc: 1.0, nll: 0.01}
    contrasts: {subspaces: {partition: [spectral_blocks, none]}, rank: {r: log}}  # see contrasts.py
    trade_off: {cost: general_nll, at: nll, along: lr}  # see trade_off.py
    seeds: 3                                     # or a list
    budget: 300k                                 # size of every strategy; or {like: FILE}
    overrides: {data.batch_size: 16}             # configuration keys for all runs
    search:                                      # trials of each cell; the final runs use the best values
      parameters: {lr: {low: 1e-4, high: 1e-1, log: true}, dropout: {choices: [0.0, 0.05], only: {mechanism: hira}}}
      trials: 8
      common: 8                                  # first trials with the same values in all cells
      extend: {factor: 2, trials: 4}             # beyond a range while the best value is at an end
      sampler: tpe                               # or {name: tpe, n_startup_trials: 5}
      pruner: none
      seeds: 1                                   # from 1000 on; different from the seeds above
      objective: nll                             # on the selection rows; default: the objective of the study
    retries: 1
    keep: best                                   # or none

``expand`` and ``space`` make cells and runs from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from smoa_lightning.common.errors import UserError, nearest, the_nearest
from smoa_lightning.common.folder_names import check_folder_name
from smoa_lightning.configuration.shipped_files import config_file
from smoa_lightning.configuration.yaml_files import (
    LocatedYaml,
    SourceLocation,
    Steps,
    merged,
    read_flag,
    read_yaml,
)
from smoa_lightning.records.metric_table import METRICS

STUDY_KEYS = {
    "name": "name of the study and of its folder (default: the name of the file)",
    "base": "experiment files of all runs",
    "axes": "name -> values; every combination of values is a cell",
    "zip": "lists of axes that change together instead of being crossed",
    "drop": "conditions of cells to leave out",
    "seeds": "seeds of the final runs, or their number",
    "baseline": "axis -> value of the cell that the other cells are compared with",
    "objective": "metric and direction",
    "secondary": "further metrics of the report",
    "margin": "largest difference that does not matter, in the unit of reports",
    "contrasts": "name -> axis with two sides or a trend",
    "trade_off": "a metric that is compared where another one is equal",
    "budget": "trainable parameters of every cell",
    "overrides": "configuration keys -> values for all runs",
    "search": "an Optuna study for each cell",
    "retries": "how often a failed run is tried again",
    "keep": "whether a run keeps its best adapter: best or none",
}
# To which depth a later file is merged key by key with earlier files; other keys are replaced.
DEPTHS = {"axes": 1, "overrides": 1, "search": 2, "contrasts": 1}
MOST_SEEDS = 10_000
KEEP = ("best", "none")
Keep = Literal["best", "none"]
Layer = tuple[Mapping[str, Any], Mapping[str, str]]  # overrides, and the place of each
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


def is_study_key(key: str) -> bool:
    """Whether a flag sets a key of the study; other flags set a configuration key of all runs."""
    return key.split(".")[0] in STUDY_KEYS


def read_study(files: Sequence[Path], flags: Iterable[tuple[str, str | None]] = ()) -> LocatedYaml:
    """Read study files and flags: each file changes the files before it, and flags change all files.

    Axes, overrides, contrasts and the parameters of a search are merged key by key; other keys are replaced. ``null``
    removes an axis, a parameter, a contrast or the search. ``overrides`` stays a list of mappings, one for each file or
    flag.

    Args:
        files: Study files; at least one.
        flags: Key -> text. ``seeds``, ``search.trials``, ``axes.r``, ... set the study, other keys are overrides.

    Raises:
        UserError: A file does not exist or is not a study file, or a key is unknown.
    """
    if not files:
        raise UserError("ablate needs a study file: --config ablations/NAME.yaml")
    tree = LocatedYaml({}, {(): SourceLocation(str(files[0]), Path(files[0]).parent)})
    layers: list[Layer] = []
    for index, file in enumerate(files):
        layer = read_yaml(Path(file), "--config")
        _check_keys(layer, str(file))
        layers += _overrides(layer)
        if index == 0:
            layer.value.setdefault("name", Path(file).stem)
        tree = merged(tree, layer, DEPTHS)
    for key, text in flags:
        layer = _flag(key, text)
        layers += _overrides(layer)
        single = tree.value.get("margin")
        if key.startswith("margin.") and single is not None and not isinstance(single, Mapping):
            raise UserError(
                f"--{key}: the study has one margin, {single}; name all of them: --margin='{{acc: 1.0, nll: 0.01}}'"
            )
        tree = merged(tree, layer, DEPTHS | {name: 1 for name in ("baseline", "objective", "margin") if key != name})
    tree.value["overrides"] = layers
    return tree


def _check_keys(tree: LocatedYaml, file: str) -> None:
    if not isinstance(tree.value, dict):
        raise UserError(f"{file} is not a study file: it needs the keys 'base' and 'axes'")
    if tree.value.keys() & {"model", "data", "trainer"}:
        raise UserError(f"{file} is an experiment, not a study: run it with fit --config {file}")
    for key in tree.value:
        if key not in STUDY_KEYS:
            raise UserError(
                f"{tree.where(key)}a study has no key {key!r}; {the_nearest(nearest(key, STUDY_KEYS, 3), 'key')}"
            )


def _flag(key: str, text: str | None) -> LocatedYaml:
    """Return the layer of a flag, which sets a key of the study or a configuration key of all runs."""
    if text is None:
        raise UserError(f"--{key} needs a value")
    given = read_flag(text, key)
    head, *rest = key.split(".", 1) if is_study_key(key) else ("overrides", key)
    parameter = head == "search" and rest and rest[0].startswith("parameters.")
    steps = (head, *(rest[0].split(".", 1) if parameter else rest))
    value: Any = given.value
    for step in reversed(steps[1:]):
        value = {step: value}
    marks: dict[Steps, SourceLocation] = {steps[: length + 1]: given.location() for length in range(len(steps))}
    return LocatedYaml({head: value}, marks)


def _overrides(layer: LocatedYaml) -> list[Layer]:
    """Remove the overrides from a file or flag and return them."""
    given = layer.value.pop("overrides", None)
    if given is None:
        return []
    if not isinstance(given, Mapping):
        where = layer.where("overrides")
        raise UserError(f"{where}overrides must be configuration keys and values, such as data.batch_size: 16")
    return [(given, {name: layer.where("overrides", name) for name in given})]


# ------------------------------------------------------------------------------------------------------- plain values


def study_name(tree: LocatedYaml) -> str:
    """Return the name of a study.

    Raises:
        UserError: The name cannot be the name of a folder.
    """
    name = tree.value.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"{tree.where('name')}name is {name!r}, but may have only letters, digits and _ . + -")
    check_folder_name(name, f"{tree.where('name')}name")
    return name


def seed_list(given: Any, first: int, where: str, name: str) -> tuple[int, ...]:
    """Return seeds: a given list, or a given number of seeds that begin at ``first``.

    Raises:
        UserError: There is no seed, or too many; a seed appears twice, or is not a whole number of at least 0.

    >>> seed_list(3, 0, "", "seeds")
    (0, 1, 2)
    """
    count = len(given) if isinstance(given, list) else given
    if isinstance(count, int) and count > MOST_SEEDS:
        raise UserError(f"{where}{name} has {count:,} seeds, but a study takes at most {MOST_SEEDS:,}")
    if isinstance(given, int) and not isinstance(given, bool) and given >= 1:
        return tuple(range(first, first + given))
    seeds = given if isinstance(given, list) else []
    if not seeds or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in seeds):
        raise UserError(
            f"{where}{name} is {given!r}, but must be the number of seeds, at least 1, or a list of whole numbers of "
            "at least 0"
        )
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{where}{name} has a seed twice: {seeds}")
    return tuple(seeds)


def retries(tree: LocatedYaml) -> int:
    """Return how often a failed run is tried again (default: once).

    Raises:
        UserError: The value is not a whole number of at least 0.
    """
    given = tree.value.get("retries", 1)
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise UserError(f"{tree.where('retries')}retries is {given!r}, but must be a whole number of at least 0")
    return given


def margins_of(tree: LocatedYaml, metrics: Sequence[str], secondary: Sequence[str]) -> dict[str, float]:
    """Return metric -> largest difference that does not matter, in the unit of reports: points of an accuracy.

    Args:
        tree: The study.
        metrics: The metrics of the cells, which a plain number belongs to. If they are several, its metric is "".
        secondary: The other metrics of the report, which a mapping may name too.

    Raises:
        UserError: A value is not a positive number, the report has no such metric, or a plain number belongs to
            metrics with different units.
    """
    given, where = tree.value.get("margin"), tree.where("margin")
    if given is None:
        return {}
    objective = metrics[0] if len(metrics) == 1 else ""
    units = {METRICS[metric].unit if metric in METRICS else metric for metric in metrics}
    if not isinstance(given, Mapping) and len(units) > 1:
        raise UserError(
            f"{where}margin is {given!r}, but the metrics of the cells have different units: {', '.join(metrics)}; "
            "set an objective that all cells have, or leave out the margin"
        )
    found = dict(given) if isinstance(given, Mapping) else {objective: given}
    for metric, margin in found.items():
        if metric not in (objective, *secondary):
            remedy = f"the nearest is {nearest(str(metric), (objective, *secondary), 1)}"
            remedy = f"name it in secondary: [{metric}]" if metric in METRICS else remedy
            raise UserError(f"{where}margin: {metric!r} is not a metric of the report; {remedy}")
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 < margin < math.inf:
            raise UserError(
                f"{where}margin is {margin!r}, but must be a number above 0 in the unit of the report, such as 1.0 for "
                "one point of an accuracy, or {acc: 1.0, nll: 0.01}"
            )
        if metric in METRICS and METRICS[metric].unit == "share" and margin >= 100:
            raise UserError(f"{where}margin is {margin!r} points of {metric}, but all differences are below 100 points")
    return {metric: float(margin) for metric, margin in found.items()}


def keep(tree: LocatedYaml) -> Keep:
    """Return whether a finished run keeps its best adapter: ``best`` or ``none``.

    Raises:
        UserError: The value is different.
    """
    given: Keep = tree.value.get("keep", "best")
    if given not in KEEP:
        raise UserError(f"{tree.where('keep')}keep is {given!r}, but must be best or none; the nearest is "
                        f"{nearest(str(given), KEEP, 1)}")  # fmt: skip
    return given


# -------------------------------------------------------------------------------------------------------------- files


def find_file(name: Any, mark: SourceLocation, what: str) -> Path:
    """Return the path of a file in a study: relative to the study file, the working directory, or in the package.

    Raises:
        UserError: There is no such file.
    """
    where = f"{mark.text}: " if mark.text else ""
    if not isinstance(name, str):
        raise UserError(f"{where}{what} needs names of files, but {name!r} is not a name")
    folders = [folder for folder in (mark.folder, Path()) if folder is not None]
    return config_file(name, "experiments", f"{where}{what}", folders).resolve()


def base_files(tree: LocatedYaml) -> tuple[Path, ...]:
    """Return the experiment files of all runs.

    Raises:
        UserError: There is no file, or a file does not exist.
    """
    given = tree.value.get("base")
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not given:
        raise UserError(f"{tree.where('base')}base must be a list of experiment files, such as [experiments/piqa.yaml]")
    return tuple(find_file(name, tree.location("base", index), "base") for index, name in enumerate(given))

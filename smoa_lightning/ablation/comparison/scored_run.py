"""One finished run, or its base model: its record and its scores of the report rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.common.paths import near_place
from smoa_lightning.data.tasks import TASKS
from smoa_lightning.records.items import read_items
from smoa_lightning.records.metric_table import COUNT, METRICS, item_scores
from smoa_lightning.records.record import BASE_ITEMS, EVALUATION, FILES, ITEMS, RECORD, STUDY, check_record, read_record
from smoa_lightning.records.selection import ON_TRAINED

Item = Mapping[str, Any]
Place = tuple[str, int]  # task and row
MEAN = ""  # stands for the mean of several tasks where the name of a task is expected


@dataclass(frozen=True)
class ReportedTask:
    """A task that a run reports on.

    Attributes:
        name: Its name.
        version: Its version; scores of two versions are not compared.
        protocol: ``likelihood`` or ``generation``.
        source: Source of the rows.
        split: The split of the report rows.
        digest: SHA-256 of the split's checked rows; None in a record without it.
    """

    name: str
    version: Any
    protocol: str
    source: str
    split: str
    digest: str | None

    @property
    def primary(self) -> str | None:
        """The primary metric; None for a task that this version does not know."""
        known = TASKS.get(self.name)
        names = {protocol.name: protocol.metric for protocol in known.protocols} if known else {}
        return names.get(self.protocol)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class ScoredRun:
    """The scores of a finished run, or of its base model.

    Attributes:
        folder: Its folder.
        record: Its record.
        part: ``report`` after training, ``base`` for the base model.
        tasks: The tasks that it reports on.
        items: (task, row) -> the line of the item.
    """

    folder: Path
    record: Mapping[str, Any]
    part: Literal["report", "base"]
    tasks: Mapping[str, ReportedTask]
    items: Mapping[Place, Item]

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.record["config"].get("seed_everything") or 0)

    def metric(self, task: str, name: str) -> float | None:
        """Return a metric of a task, or of the mean of all tasks (``MEAN``); None if it was not measured.

        A metric that the record of an earlier version lacks is the mean of the scores of items, if they have it.
        """
        plain = task == MEAN or len(self.tasks) == 1
        value = self.record["metrics"].get(f"{self.part}/{name}" if plain else f"{self.part}/{task}/{name}")
        return float(value) if value is not None else self._means.get((task, name))

    @cached_property
    def _means(self) -> dict[tuple[str, str], float]:
        """(task, metric) -> the mean over the items of each metric that all of them have."""
        found = {}
        for task in self.tasks:
            items = [item for (name, _), item in self.items.items() if name == task]
            for metric in METRICS:
                scores = item_scores(items, metric)
                if scores:
                    found[task, metric] = fmean(scores)
        each = [{metric: mean for (name, metric), mean in found.items() if name == task} for task in self.tasks]
        for metric in METRICS if len(self.tasks) > 1 else ():
            if all(metric in means for means in each):
                found[MEAN, metric] = fmean(means[metric] for means in each)
        return found

    def metrics(self, task: str) -> list[str]:
        """Return the names of the measured metrics of a task in the order of tables."""
        return [name for name in METRICS if self.metric(task, name) is not None]


def run_record(folder: Path) -> dict[str, Any]:
    """Return the record of a run folder.

    Raises:
        UserError: There is no such folder, it holds no run, or its record is damaged.
    """
    record = read_record(folder) if folder.is_dir() else None
    if record is not None:
        check_record(folder / RECORD, record)
        return record
    if (folder / STUDY).is_file():
        raise UserError(f"{folder} is a study, not a run: name runs, such as those in {folder / 'runs'}")
    if (folder / EVALUATION).is_file():
        raise UserError(f"{folder} is the folder of an evaluation, not of a run: name the folder of its run")
    meant = near(folder, RECORD)
    hint = f"; did you mean {meant}?" if meant else near_place(folder) or ": name a folder that fit has written"
    fault = f"{folder} is not a run, it has no {RECORD}" if folder.is_dir() else f"{folder} does not exist"
    raise UserError(f"{fault}{hint}")


def near(folder: Path, *names: str) -> Path | None:
    """Return a folder near a path that holds one of some files: inside, above, or next to it with a similar name."""
    if folder.is_dir():
        files = [
            file for pattern in ("*", "*/*") for name in names for file in sorted(folder.glob(f"{pattern}/{name}"))
        ]
        above = (parent for parent in folder.parents if any((parent / name).is_file() for name in names))
        return files[0].parent if files else next(above, None)
    others = [file.parent.name for name in names for file in folder.parent.glob(f"*/{name}")]
    return folder.parent / nearest(folder.name, others, 1) if others else None


def scored_run(folder: Path) -> ScoredRun:
    """Read a finished run with its scores on the report rows.

    Raises:
        UserError: The folder holds no finished run with such scores, or a file is damaged.
    """
    record = run_record(folder)
    if record["status"] != "finished":
        raise UserError(
            f"the run in {folder} is not finished (its status is {record['status']!r}): run its fit command again"
        )
    if not any(name.startswith("report/") for name in record.get("metrics", {})):
        raise UserError(
            f"the run in {folder} has no scores of report rows: it had no such rows, or run.score_report was false"
        )
    _check_tasks(folder, record)
    return ScoredRun(folder, record, "report", reported_tasks(record), _items(folder, record, ITEMS))


def base_of(run: ScoredRun) -> ScoredRun:
    """Return the base model of a run.

    Raises:
        UserError: The run did not score its base model.
    """
    if not any(name.startswith("base/") for name in run.record["metrics"]):
        raise UserError(f"the run in {run.folder} has no scores of its base model: run.score_base was false")
    return ScoredRun(run.folder, run.record, "base", run.tasks, _items(run.folder, run.record, BASE_ITEMS))


def reported_tasks(record: Mapping[str, Any]) -> dict[str, ReportedTask]:
    """Return the tasks that a finished run reports on, by name."""
    data = record["data"]
    each = {name: data["tasks"][name] for name in data["reported"]} if "tasks" in data else {data["task"]: data}
    return {name: _reported(name, facts, record["config"]["data"]) for name, facts in each.items()}


def _check_tasks(folder: Path, record: Mapping[str, Any]) -> None:
    """Refuse a record whose data section does not name the reported tasks and their rows."""
    try:
        if not reported_tasks(record):
            raise ValueError("'data' names no task")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        fault = f"'data' has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{folder / RECORD} is damaged ({fault}): restore the file") from error


def _reported(name: str, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> ReportedTask:
    splits = facts.get("splits") or {}
    known = TASKS.get(name)
    split = settings.get("report_split") or (known.report_split if known else "")
    split = (known.train_split if known else "train") if settings.get("selection") == ON_TRAINED else split
    if split not in splits:  # a task of a different package
        split = next((other for other in splits if other != "train"), split)
    digest = (splits.get(split) or {}).get("sha256")
    return ReportedTask(name, facts.get("task_version"), facts.get("protocol", ""), facts["source"], split, digest)


def _items(folder: Path, record: Mapping[str, Any], name: str) -> dict[Place, Item]:
    file = folder / name
    if not file.is_file():
        raise UserError(f"{file} is missing: restore the file, or score the run again")
    tasks = reported_tasks(record)
    only = next(iter(tasks)) if len(tasks) == 1 else ""
    lines = read_items(file, record.get(FILES, {}).get(name))
    found: dict[Place, Item] = {(item.get("task", only), item["row"]): item for item in lines}
    numbers = Counter(task for task, _ in found)
    if fault := _fault(numbers, tasks, record["metrics"], "base" if name == BASE_ITEMS else "report"):
        raise UserError(f"{file} is damaged ({fault}): restore the file")
    return found


def _fault(numbers: Mapping[str, int], tasks: Collection[str], metrics: Mapping[str, Any], part: str) -> str:
    """Return why items are not those of the record; empty if they are.

    Args:
        numbers: Task -> number of its items.
        tasks: The tasks of the record.
        metrics: The metrics of the record.
        part: ``report`` or ``base``.
    """
    for task in numbers:
        if task not in tasks:
            return f"it has rows of {task!r}" if task else "a row names no task"
    for task in tasks:
        if not numbers.get(task):
            return f"it has no row of {task!r}"
        expected = metrics.get(f"{part}/{COUNT}" if len(tasks) == 1 else f"{part}/{task}/{COUNT}")
        if expected is not None and numbers[task] != expected:
            return f"it has {numbers[task]:,} rows of {task!r} and not {expected:,.0f}"
    return ""

"""The prompt and the choices of report rows, read from the data of a run if they are still there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smoa_lightning.ablation.comparison.scored_run import ReportedTask, ScoredRun
from smoa_lightning.backbones.hub import cached_snapshot
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.data.rows.locations import joined
from smoa_lightning.data.rows.sources import Origin, load_split
from smoa_lightning.data.tasks import ChoiceExample, Classification, Protocol, Task
from smoa_lightning.data.tasks.configured import configured_task
from smoa_lightning.data.tasks.published import protocol_of


@dataclass(frozen=True)
class RowText:
    """A row as a reader sees it.

    Attributes:
        prompt: The prompt; of choices with different prompts, the first one.
        choices: The choices, or the names of the classes; empty for a reply and for a number.
    """

    prompt: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class RowTexts:
    """The texts of some rows.

    Attributes:
        rows: Row -> its text; empty if the data cannot be read.
        missing: Why there are no texts; empty if there are.
    """

    rows: Mapping[int, RowText]
    missing: str = ""


def row_texts(run: ScoredRun, name: str, rows: Sequence[int]) -> RowTexts:
    """Return the texts of some report rows of a task. Nothing is downloaded.

    The rows are read again from where the run read them, and used only if their digest is that of the record.

    Args:
        run: The run.
        name: Name of the task.
        rows: The rows.
    """
    if not rows:
        return RowTexts({})
    reported = run.tasks[name]
    try:
        task, protocol, origin = _place(run.record, reported)
        settings = run.record["config"]["data"]
        table, provenance = load_split(task, reported.split, origin, settings["bad_rows"], settings.get("cache", True))
    except (UserError, OSError, KeyError, TypeError) as error:
        reason = one_line(error).rstrip(".")
        return RowTexts({}, f"The texts of the rows of {name} are not shown: {reason}.")
    if provenance.sha256 != reported.digest:
        place = f"{provenance.location} has other rows now (SHA-256 {provenance.sha256[:12]})"
        return RowTexts({}, f"The texts of the rows of {name} are not shown: {place}.")
    names = _names_of_head(run.record) if isinstance(protocol, Classification) else ()
    return RowTexts({row: _text(protocol, table[row], names) for row in rows})


def _names_of_head(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes of a new head; empty without one."""
    head = (record.get("backbone") or {}).get("head") or {}
    return tuple(head.get("names", ()))


def _place(record: Mapping[str, Any], reported: ReportedTask) -> tuple[Task, Protocol, Origin]:
    settings = record["config"]["data"]
    names = settings.get("class_names") or _names_of_head(record) or None
    task = configured_task(reported.name, settings.get("fields"), settings.get("first_label"), lambda: names)
    if task.version != reported.version:
        raise UserError(f"the run has version {reported.version} of the task, and this is version {task.version}")
    if reported.source == "local":
        path = settings["path"]
        origin = Origin("local", path=joined(str(path), reported.name) if "tasks" in record["data"] else path)
    elif reported.source == "hub":
        repository = str(settings.get("repository") or task.hub_repository)
        facts = (record["data"].get("tasks") or {}).get(reported.name, record["data"])
        commit = facts["splits"][reported.split]["commit"]
        if cached_snapshot(repository, "dataset", commit) is None:
            raise UserError(f"the cache of the hub no longer holds {repository} at commit {commit}")
        origin = Origin("hub", repository=repository, revision=commit, commit=commit)
    else:
        origin = Origin("embedded")
    return task, protocol_of(task, reported.protocol, settings.get("rules")), origin


def _text(protocol: Protocol, row: Any, names: tuple[str, ...]) -> RowText:
    example = protocol.example(row)
    if not isinstance(example, ChoiceExample):
        return RowText(example.prompt, names)
    if isinstance(example.prompt, str):
        return RowText(example.prompt, tuple(choice.strip() for choice in example.choices))
    pairs = tuple(f"{prompt}{choice}".strip() for prompt, choice in example.pairs)  # each choice has its own prompt
    return RowText("", pairs)

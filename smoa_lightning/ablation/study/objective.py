"""The objective of a study: its metric, the tasks that measure it, and its better direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from smoa_lightning.common.errors import UserError, nearest, the_nearest
from smoa_lightning.data.tasks import Classification, Generation, Protocol, Regression, get_task, protocol_of
from smoa_lightning.records.metric_table import COMMON, METRICS, Direction, Source

Part = Literal["report", "selection"]

DIRECTIONS = {name: metric.direction for name, metric in METRICS.items() if metric.direction is not None}


@dataclass(frozen=True)
class Objective:
    """A metric and its better direction.

    Attributes:
        metric: Name without the part; ``None`` for the primary metric of each cell's task.
        direction: ``maximize`` or ``minimize``; ``None`` until the metric is known.
    """

    metric: str | None = None
    direction: Direction | None = None

    @classmethod
    def parse(cls, given: Any, where: str) -> Objective:
        """Read ``{metric: acc, direction: maximize}``, ``acc``, or nothing.

        Raises:
            UserError: Metric or direction is unknown, or the metric gets worse in this direction.
        """
        given = {} if given is None else {"metric": given} if isinstance(given, str) else given
        if not isinstance(given, Mapping):
            raise UserError(f"{where}the objective is {given!r}, but must be like {{metric: acc, direction: maximize}}")
        for key in given:
            if key not in ("metric", "direction"):
                raise UserError(f"{where}unknown key {key!r} of the objective; its keys are 'metric' and 'direction'")
        metric, direction = given.get("metric"), given.get("direction")
        if metric is not None and metric not in DIRECTIONS:
            raise UserError(f"{where}unknown metric {metric!r}; {the_nearest(nearest(str(metric), DIRECTIONS, 3))}")
        if direction not in (None, "maximize", "minimize"):
            near = nearest(str(direction), ("maximize", "minimize"), 1)
            raise UserError(
                f"{where}direction is {direction!r}, but must be maximize or minimize; the nearest is {near}"
            )
        if metric is not None and direction not in (None, DIRECTIONS[metric]):
            raise UserError(f"{where}direction is {direction}, but for {metric} it must be {DIRECTIONS[metric]}")
        return cls(metric, direction or DIRECTIONS.get(metric or ""))


def tasks_of(settings: Mapping[str, Any], part: Part) -> dict[str, Protocol]:
    """Return the tasks with scored rows in a part, and their protocols; empty for a mixture without tasks.

    Args:
        settings: Resolved settings of a run.
        part: ``report`` or ``selection``.

    Raises:
        UserError: A task is unknown, or does not have the protocol.
    """
    data = settings.get("data") or {}
    names = [data.get("task", "piqa")]
    if names == ["mixture"]:
        names = list(data.get("mixture") or [])
    if part == "report" and data.get("report_tasks"):
        names = list(data["report_tasks"])
    return {name: protocol_of(get_task(name), data.get("protocol"), data.get("rules")) for name in names}


def measured_metrics(protocols: Sequence[Protocol], part: Part, taught: bool = False) -> tuple[str, ...]:
    """Return the metrics with a better direction that all protocols measure in a part.

    On the selection rows replies are generated only if the metric that selects the checkpoint needs them. The
    perplexity of general text is measured only with the report rows, and the KL to a teacher only if it is scored.
    """
    teacher: set[Source] = {"teacher"} if taught else set()
    sources_of = [_sources(protocol, part) | teacher for protocol in protocols]
    return tuple(
        name
        for name in DIRECTIONS
        if (part == "report" or METRICS[name].selects)
        and all(sources & {*METRICS[name].sources} for sources in sources_of)
        and (name != "f1" or all(_has_two_classes(protocol) for protocol in protocols))
    )


def _has_two_classes(protocol: Protocol) -> bool:
    return isinstance(protocol, Classification) and len(protocol.names) == 2


def _sources(protocol: Protocol, part: Part) -> set[Source]:
    """Return the sources of metrics under a protocol."""
    if isinstance(protocol, Classification):
        return {"classes"}
    if isinstance(protocol, Regression):
        return {"numbers"}
    if not isinstance(protocol, Generation):
        return {"choices", "general text"}
    found: set[Source] = {"gold replies"} if protocol.code_bits is None else {"gold replies", "codes"}
    if part == "report" or METRICS[protocol.selection_metric].needs_reply:
        found |= {"answers" if protocol.answer is not None else "reply texts", "general text"}
    return found


def metric_of(
    objective: Objective, settings: Mapping[str, Any], part: Part, where: str = "", what: str = "objective"
) -> str:
    """Return the metric of a cell in a part of the rows: the objective's metric, else the task's primary metric.

    Raises:
        UserError: The task does not measure the objective's metric in this part.
    """
    protocols = tasks_of(settings, part)
    if not protocols:
        return objective.metric or COMMON
    taught = bool(((settings.get("model") or {}).get("distillation") or {}).get("score"))
    known = measured_metrics(list(protocols.values()), part, taught)
    if objective.metric is None:
        own = {p.metric if part == "report" else p.selection_metric for p in protocols.values()}
        return own.pop() if len(own) == 1 else COMMON
    without_text = (settings.get("forgetting") or {}).get("text", "") is None
    if METRICS[objective.metric].of_general_text and without_text:
        raise UserError(f"{where}the {what} {objective.metric} needs a general text, but forgetting.text is null")
    if objective.metric not in known:
        rows = "report rows" if part == "report" else "selection rows"
        hint = "" if part == "report" else "; set search.objective to one of them"
        raise UserError(f"{where}the {what} {objective.metric} is not measured on the {rows} of "
                        f"{', '.join(protocols)}, which have {', '.join(known)}{hint}")  # fmt: skip
    return objective.metric


def parse_secondary(
    given: Any, metrics: Sequence[str], cells: Sequence[Mapping[str, Any]], where: str
) -> tuple[str, ...]:
    """Return the further metrics of a report: a name or a list of names.

    Args:
        given: The value in the study file; None for no further metric.
        metrics: The metrics of the cells.
        cells: Resolved settings of each cell.
        where: Place of the value, for messages.

    Raises:
        UserError: A metric is unknown, is named twice, is that of all cells, or is not measured by the task of a cell.
    """
    names = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(names, list):
        raise UserError(f"{where}secondary is {given!r}, but must be a list of metrics, such as [expected_acc]")
    for place, name in enumerate(names):
        Objective.parse({"metric": name}, where)
        if name in names[:place] or [name] == list(metrics):
            raise UserError(f"{where}secondary names {name} twice" if name in names[:place] else
                            f"{where}secondary names {name}, which is the objective")  # fmt: skip
        for settings in cells:
            metric_of(Objective(name), settings, "report", where, "secondary metric")
    return tuple(names)

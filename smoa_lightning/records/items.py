"""Read the item scores of a run from ``items.jsonl`` and ``general_items.jsonl``, for paired comparisons and plans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from smoa_lightning.common.errors import UserError
from smoa_lightning.records.metric_table import METRICS, item_scores, prediction_field
from smoa_lightning.records.record import FILES, GENERAL_ITEMS, ITEMS, shortened

Place = tuple[str, int]  # task and row
Scores = dict[Place, float]


def read_right(file: Path, metric: str, checksum: str | None = None) -> Scores:
    """Return the scores of one metric without the groups, see ``read_metrics``."""
    return read_metrics(file, [metric], checksum)[0][metric]


def read_run(
    folder: Path, metrics: Sequence[str], record: Mapping[str, Any], base: bool = False
) -> tuple[dict[str, Scores], dict[Place, Place]]:
    """Return the scores of a run by metrics of report rows and of general text, and the groups, see ``read_metrics``.

    Args:
        folder: Folder of the run.
        metrics: Names of metrics, without the part.
        record: Record of the run.
        base: Whether to read the scores of the base model.

    Raises:
        UserError: A file is damaged or was changed.
    """
    of_text = [name in METRICS and METRICS[name].of_general_text for name in metrics]
    scores: dict[str, Scores] = {}
    groups: dict[Place, Place] = {}
    for is_text, name in ((False, ITEMS), (True, GENERAL_ITEMS)):
        file = f"base_{name}" if base else name
        own = [metric for metric, each in zip(metrics, of_text, strict=True) if each == is_text]
        found, more = read_metrics(folder / file, own, record.get(FILES, {}).get(file))
        scores, groups = scores | found, groups | more
    return {name: scores[name] for name in metrics}, groups


def read_metrics(
    file: Path, metrics: Sequence[str], checksum: str | None = None
) -> tuple[dict[str, Scores], dict[Place, Place]]:
    """Return metric -> (task, row) -> score of the item, and (task, row) -> the first item of its group.

    The scores are empty without a file, for a metric that is no mean of scores of items, or if an item has no score.
    The groups are empty if each item is a group of its own, and in files of earlier versions.

    Args:
        file: The item scores of a run.
        metrics: Names of metrics, without the part.
        checksum: SHA-256 of the file, from the record; ``None`` if the record is of an earlier version.

    Raises:
        UserError: The file is damaged or was changed.
    """
    if not file.is_file() or all(METRICS[name].item is None for name in metrics if name in METRICS):
        return {name: {} for name in metrics}, {}
    items = read_items(file, checksum)
    with _reading(file):
        places = [(item.get("task", ""), item["row"]) for item in items]
        scores = {name: item_scores(items, name) for name in metrics}
        groups = {
            place: (place[0], item["group"]) for place, item in zip(places, items, strict=True) if "group" in item
        }
    return {name: {} if own is None else dict(zip(places, own, strict=True)) for name, own in scores.items()}, groups


def read_items(file: Path, checksum: str | None = None) -> list[dict[str, Any]]:
    """Return the lines of a file of item scores, each with its ``row``.

    Args:
        file: The item scores of a run.
        checksum: SHA-256 of the file, from the record; ``None`` if the record is of an earlier version.

    Raises:
        UserError: The file is damaged or was changed.
    """
    content = file.read_bytes()
    with _reading(file):
        if checksum is not None and hashlib.sha256(content).hexdigest() != checksum:
            raise ValueError("its checksum is wrong")
        items: list[dict[str, Any]] = json.loads(
            b"[" + b",".join(content.splitlines()) + b"]"
        )  # twice as fast as lines
        if checksum is None:  # with its checksum, the file is as a run has written it
            _check(items)
    return items


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}): restore the file") from error


def _check(items: list[dict[str, Any]]) -> None:
    """Check that each line has the fields of its kind, and each row one line.

    Raises:
        ValueError: Names the line and the field.
    """
    if _is_intact(items):
        return
    seen: set[tuple[str, int]] = set()
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise ValueError(f"line {number} is no object")
        if fault := _fault([item]):
            raise ValueError(f"line {number}: {fault}")
        place = (item.get("task", ""), item["row"])
        if place in seen:
            raise ValueError(f"line {number}: row {item['row']} is there twice")
        seen.add(place)


def _is_intact(items: list[dict[str, Any]]) -> bool:
    """Whether no line has a fault, by columns of the lines with the same fields: much faster than line by line."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for item in items:
        if not isinstance(item, dict):
            return False
        groups.setdefault(tuple(item), []).append(item)
    if any(map(_fault, groups.values())):
        return False
    return len({(item.get("task", ""), item["row"]) for item in items}) == len(items)


def _fault(items: Sequence[dict[str, Any]]) -> str:
    """Return what is wrong with lines of the same fields; empty if they are lines of scores."""
    columns = dict(zip(items[0], zip(*map(dict.values, items), strict=True), strict=True))
    is_choice = "log_likelihood" in columns or any(name.startswith(PREDICTION) for name in columns)
    for name in (
        "row",
        *(["label"] if is_choice else []),
        *(["tokens"] if columns.keys() & {"nll", "text_nll"} else []),
    ):
        if name not in columns:
            return f"it has no {name!r}"
    for name, values in columns.items():
        kind = WHOLE if name.startswith(PREDICTION) or (is_choice and name == "label") else KINDS.get(name)
        if kind is not None and not kind[0](values):
            return f"{name!r} is {shortened(repr(values[0]), 40)} and not {kind[1]}"
    choices = zip(columns["label"], columns["log_likelihood"], strict=True) if "log_likelihood" in columns else ()
    for label, scores in choices:
        if label >= len(scores):
            return f"'label' is {label}, but 'log_likelihood' has {len(scores)} choices, and the first is 0"
    return ""


def is_number(value: Any) -> bool:
    """Return whether a value is a number, finite or not."""
    return type(value) in NUMBERS


def _are(values: Sequence[Any], types: Set[type], least: int | None = None) -> bool:
    """Whether all values of a JSON file have one of the types, and none is smaller than ``least``."""
    return set(map(type, values)) <= types and (least is None or min(values) >= least)


PREDICTION = prediction_field("")
NUMBERS = frozenset({int, float})  # not bool, which is a type of its own
Kind = tuple[Callable[[Sequence[Any]], bool], str]  # whether all values are of the kind, and the name of the kind
WHOLE: Kind = (lambda values: _are(values, {int}, 0), "a whole number from 0")
TEXT: Kind = (lambda values: _are(values, {str}), "a text")
KINDS: dict[str, Kind] = {
    "row": WHOLE,
    "group": WHOLE,
    "task": TEXT,
    "reply": TEXT,
    "reference": TEXT,
    "tokens": (lambda values: _are(values, {int}, 1), "a whole number from 1"),
    "nll": (lambda values: _are(values, NUMBERS), "a number"),
    "text_nll": (lambda values: _are(values, NUMBERS), "a number"),
    "correct": (lambda values: all(value in (0, 1) for value in values), "true or false"),
    "log_likelihood": (
        lambda values: _are(values, {list}) and _are([*chain.from_iterable(values)], NUMBERS),
        "a list of numbers",
    ),
}

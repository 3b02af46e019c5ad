"""The settings that differ between runs, and the facts of their records side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from smoa_lightning.ablation.comparison.scored_run import reported_tasks
from smoa_lightning.ablation.comparison.sides import SEEDS, Side
from smoa_lightning.configuration.settings import schema
from smoa_lightning.records.metric_table import measured
from smoa_lightning.records.record import content, flat

ABSENT = "–"  # a setting that a run does not have
INIT_ARGS = ".init_args."

# Title -> how to read a fact from a record. The order is that of the tables.
FACTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "method": lambda record: record["hyperparameters"].get("strategy"),
    "rank": lambda record: record["hyperparameters"].get("rank") or None,
    "seed": lambda record: record["config"].get("seed_everything"),
    "base model": lambda record: _short(record["backbone"]),
    "base model, digest": lambda record: _digest(record["backbone"].get("sha256")),
    "report rows, digest": lambda record: _report_digest(record),
    "training rows, digest": lambda record: _training_digest(record["data"]),
    "teacher": lambda record: record["teacher"]["name"],
    "teacher's cache, mean mass": lambda record: f"{record['teacher']['cache']['mean_mass']:.4%}",
    "teacher's cache, smallest mass": lambda record: f"{record['teacher']['cache']['smallest_mass']:.4%}",
    "trainable parameters": lambda record: record["metrics"].get("parameters/trainable"),
    "adapter, bytes": lambda record: record["metrics"].get("parameters/adapter_bytes"),
    "training, s": lambda record: _measured(record, "cost/train_seconds"),
    "whole run, s": lambda record: record.get("seconds"),
    "step, s": lambda record: _measured(record, "cost/step_seconds"),
    "tokens/s": lambda record: _measured(record, "cost/tokens_per_second"),
    "images/s": lambda record: _measured(record, "cost/images_per_second"),
    "peak memory, MB": lambda record: _measured(record, "cost/peak_memory_mb"),
    "effective rank": lambda record: _measured(record, "rank/effective_mean"),
    "device": lambda record: record.get("device"),
    "torch": lambda record: record["environment"]["packages"].get("torch"),
    "commit": lambda record: ((record["environment"].get("git") or {}).get("commit") or "")[:12] or None,
    "finished": lambda record: record.get("finished"),
    "signature": lambda record: record["signature"],
}

OF_THE_BASE = ("base model", "base model, digest", "report rows, digest")  # facts that a base model has


def fact_text(side: Side, title: str) -> str:
    """Return a fact of a side as text: the mean of numbers over its runs, and all different texts."""
    if side.is_base and title not in OF_THE_BASE:
        return ""
    return _as_text([fact(run.record, title) for run in side.runs], title)


def fact_of(record: Mapping[str, Any], title: str) -> str:
    """Return a fact of a record as text; empty if the record does not have it."""
    return _as_text([fact(record, title)], title)


def _as_text(values: Sequence[Any], title: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    if title == "seed" or not all(isinstance(value, int | float) for value in known):
        return ", ".join(dict.fromkeys(str(value) for value in known))
    mean = sum(known) / len(known)
    if not math.isfinite(mean):
        return str(mean)
    return f"{mean:,.0f}" if mean >= 100 or mean == int(mean) else f"{mean:.3g}"


def _measured(record: Mapping[str, Any], metric: str) -> float | None:
    return measured(metric, record["metrics"].get(metric))


def fact(record: Mapping[str, Any], title: str) -> Any:
    """Return a fact of a record; None if the record does not have it."""
    try:
        return FACTS[title](record)
    except (KeyError, TypeError, AttributeError, IndexError):
        return None


def differing_settings(sides: Sequence[Side]) -> dict[str, list[str]]:
    """Return each setting that differs -> its value in each side.

    Only settings that decide a result count. A setting of a class that only some sides use is left out if it has its
    default value there. The sides of a comparison by seed may differ in their seeds within a side: seeds are left out.
    """
    trained = [side for side in sides if not side.is_base]
    settings = [flat(content(side.first.record["config"])) for side in trained]
    grouped = any(len(side.runs) > 1 for side in trained)
    found: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for own in settings for key in own):
        if grouped and key in SEEDS:
            continue
        values = [own.get(key, ABSENT) for own in settings]
        if all(value == values[0] for value in values) or _is_default(key, settings):
            continue
        texts = iter(_text(value) for value in values)
        found[key] = ["" if side.is_base else next(texts) for side in sides]
    return found


def _is_default(key: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a setting belongs to a class that not all runs use, and is at its default where it is used."""
    owner, found, name = key.partition(INIT_ARGS)
    paths = [own.get(f"{owner}.class_path") for own in settings]
    if not found or all(path == paths[0] for path in paths):
        return False
    if all(key in own for own in settings):
        return False
    own = [(path, each[key]) for path, each in zip(paths, settings, strict=True) if key in each]
    return all(value in (None, {}, []) or value == _default(path, name) for path, value in own)


def _default(path: Any, name: str) -> Any:
    """Return the default of a setting of a class; None if the schema does not have it."""
    classes = schema().get("$defs", {})
    node: Any = classes.get(path) or {}
    for word in name.split("."):
        node = (node.get("properties") or {}).get(word) or {}
        node = {**classes.get(str(node.get("$ref", "")).rpartition("/")[2], {}), **node}
    return node.get("default")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _short(backbone: Mapping[str, Any]) -> str:
    name = PurePath(str(backbone["name"])).name if backbone["source"] == "local" else str(backbone["name"])
    return "embedded" if backbone["source"] == "embedded" else name


def _digest(digests: Mapping[str, str] | None) -> str | None:
    return ", ".join(str(digest)[:12] for _, digest in sorted((digests or {}).items())) or None


def _report_digest(record: Mapping[str, Any]) -> str | None:
    tasks = reported_tasks(record).values()
    return ", ".join(f"{task.split} {task.digest[:12]}" for task in tasks if task.digest) or None


def _training_digest(data: Mapping[str, Any]) -> str | None:
    trained = [data["tasks"][name] for name in data["trained"]] if "tasks" in data else [data]
    digests = [((each.get("splits") or {}).get("train") or {}).get("sha256") for each in trained]
    return ", ".join(str(digest)[:12] for digest in digests if digest) or None

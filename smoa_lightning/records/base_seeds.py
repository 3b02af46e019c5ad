"""The seeds that the base model of a run depends on: those of its few-shot prompts and of its new head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

NEW_HEAD = {"classification", "regression"}  # protocols that put a new head on the model


def seeds_of_base(settings: Mapping[str, Any], protocols: Iterable[str]) -> tuple[Any, ...]:
    """Return the seeds that the base model depends on; None is ``seed_everything``, where it is not set yet.

    ``data.seed`` chooses the solved rows of few-shot prompts. ``model.adapter_seed`` draws a new head, unless it starts
    from texts.

    Args:
        settings: Composed settings of a run.
        protocols: Names of the protocols of its report rows.

    >>> seeds_of_base({"data": {"num_fewshot": 2}}, ["likelihood"])
    (None,)
    >>> seeds_of_base({"data": {"seed": 1}}, ["likelihood"])
    ()
    >>> seeds_of_base({"model": {"adapter_seed": 3}}, ["classification"])
    (3,)
    """
    data, model = settings.get("data") or {}, settings.get("model") or {}
    prompts = (data.get("seed"),) if data.get("num_fewshot") else ()
    drawn = NEW_HEAD & {*protocols} and model.get("head_init") is None
    return (*prompts, model.get("adapter_seed")) if drawn else prompts


def protocols_of(record: Mapping[str, Any]) -> list[str]:
    """Return the names of the protocols in a record.

    >>> protocols_of({"data": {"protocol": "likelihood"}})
    ['likelihood']
    """
    data = record.get("data") or {}
    return [str(facts.get("protocol")) for facts in (data.get("tasks") or {"": data}).values()]

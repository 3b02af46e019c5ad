"""The section of a report on searches: best values, importances, and whether the ranges were wide enough."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from smoa_lightning.ablation.report.folder import StudyFolder
from smoa_lightning.records.page.document import Block, Heading, Paragraph, Points, Table, columns


def search_blocks(study: StudyFolder) -> list[Block]:
    """Return the section on searches; empty if the study has no search."""
    if not study.searches or study.description.get("search") is None:
        return []
    rows, edges = [], []
    for cell, search in study.searches.items():
        states = [trial["state"] for trial in search["trials"]]
        counts = f"{states.count('COMPLETE')} / {states.count('PRUNED')} / {states.count('FAIL')}"
        best = best_trial(search)
        chosen = "" if best is None else short_values(best["parameters"])
        score = "" if best is None else f"{best['value']:.4f}"
        weights = ", ".join(f"{short(k)} {v:.2f}" for k, v in search["importances"].items())
        rows.append((cell, search["metric"], chosen, weights, score, counts))
        edges += [] if best is None else edge_sentences(cell, best["parameters"], study.description["search"])
    titles = ["cell", "metric", "best values", "importance (PED-ANOVA)", "best score", "complete / pruned / failed"]
    table = Table("searches", "The search of each cell, on held-out training rows.", columns(titles, 4), tuple(rows))
    numbers = {len(search["trials"]) for search in study.searches.values()}
    same = "Every cell has" if len(numbers) == 1 else "The cells do not yet have"
    note = (
        f"Trials use separate seeds and never see the report rows. {same} the same number of trials. The best score of "
        "a search is the best of several and therefore too good, so the cells are compared by separate final runs."
    )
    ends = Points(tuple(edges)).folded("sentences") if edges else []
    return [Heading("Searches"), table, *ends, Paragraph(note), trial_table(study)]


def best_trial(search: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the best trial of a search from ``trials.json``."""
    return next((trial for trial in search["trials"] if trial["number"] == search["best"]), None)


def edge_sentences(cell: str, chosen: Mapping[str, Any], search: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each best value at an end of its range.

    A value is at an end if it is the smallest or largest choice, or within 2 % of the range's width from the end.
    """
    found = []
    for key, value in chosen.items():
        ends = _ends(search["parameters"].get(key, {}), value)
        if ends is not None:
            found.append(
                f"{cell}: the best {short(key)}, {_value(value)}, is at the {ends} end of its range; a better value "
                "may be outside of the range."
            )
    return found


def _ends(parameter: Mapping[str, Any], value: Any) -> str | None:
    if "choices" in parameter:
        numbers = parameter["choices"]
        if len(numbers) < 3 or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
            return None
        return "lower" if value == min(numbers) else "upper" if value == max(numbers) else None
    if "low" not in parameter:
        return None
    low, high = float(parameter["low"]), float(parameter["high"])
    log = parameter.get("log")
    place = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
    return "lower" if place < 0.02 else "upper" if place > 0.98 else None


def trial_table(study: StudyFolder) -> Table:
    """Return all trials."""
    rows = []
    for cell, search in study.searches.items():
        for trial in search["trials"]:
            score = "" if trial["value"] is None else f"{trial['value']:.4f}"
            seconds = "" if trial["seconds"] is None else f"{trial['seconds']:.0f}"
            what = (trial["state"].lower(), short_values(trial["parameters"]), trial["reason"])
            rows.append((cell, *what, str(trial["number"]), score, seconds))
    titles = ["cell", "state", "values", "reason", "trial", "score", "seconds"]
    return Table("trials", "All trials.", columns(titles, 4), tuple(rows), most_rows=12)


def short(key: str) -> str:
    """Return the last word of a configuration key."""
    return key.rpartition(".")[2]


def short_values(parameters: Mapping[str, Any]) -> str:
    """Return searched values with the last words of their keys.

    >>> short_values({"model.optimizer.init_args.lr": 0.0123, "model.adapter.init_args.r": 8})
    'lr 0.0123, r 8'
    """
    return ", ".join(f"{short(key)} {_value(value)}" for key, value in parameters.items())


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

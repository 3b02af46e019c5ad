"""The section of a report on searches: best values, importances, and whether the ranges were wide enough."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

from smoa_lightning.ablation.report.folder import StudyFolder
from smoa_lightning.records.page.document import Block, Heading, Paragraph, Points, Table, columns


def search_blocks(study: StudyFolder) -> list[Block]:
    """Return the section on searches; empty if the study has no search."""
    if not study.searches or study.description.get("search") is None:
        return []
    rows, edges = [], []
    extend = study.description["search"].get("extend")
    for cell, search in study.searches.items():
        trials = search["trials"]
        states = [trial["state"] for trial in trials]
        counts = f"{states.count('COMPLETE')} / {states.count('PRUNED')} / {states.count('FAIL')}"
        best = best_trial(search)
        chosen = "" if best is None else short_values(best["parameters"])
        score = "" if best is None else f"{best['value']:.4f}"
        weights = ", ".join(f"{short(k)} {v:.2f}" for k, v in search["importances"].items())
        outside = () if extend is None else (str(beyond_ranges(search)),)
        rows.append((cell, search["metric"], chosen, weights, score, counts, *outside))
        edges += [] if best is None else tie_sentences(cell, best, trials)
        edges += [] if best is None else edge_sentences(cell, best["parameters"], study.description["search"], trials)
    titles = ["cell", "metric", "best values", "importance (PED-ANOVA)", "best score", "complete / pruned / failed"]
    titles += [] if extend is None else ["of these added by extend"]
    table = Table("searches", "The search of each cell, on held-out training rows.", columns(titles, 4), tuple(rows))
    ends = Points(tuple(edges)).folded("sentences") if edges else []
    return [Heading("Searches"), table, *ends, Paragraph(_note(study)), trial_table(study)]


def _note(study: StudyFolder) -> str:
    """Return the paragraph on the trials: how many, which first values, and why their best score is too good."""
    found, search = study.searches.values(), study.description["search"]
    numbers = {len(each["trials"]) - beyond_ranges(each) for each in found}
    same = "Every cell has" if len(numbers) == 1 else "The cells do not yet have"
    common, extend = _same_first(list(found), min(search.get("common", 0), search["trials"])), search.get("extend")
    more = "" if common < 2 or len(found) < 2 else f" The first {common} trials have the same values in every cell."
    if extend is not None:
        outside = sum(beyond_ranges(each) > 0 for each in found)
        more += (
            f" Up to {extend['trials']} more trials follow in a cell whose best value is the smallest or largest tried "
            f"one: {outside} of {len(found)} cells have some."
        )
        totals = {len(each["trials"]) for each in found}
        more += f" So the cells have {min(totals)} to {max(totals)} trials." if len(totals) > 1 else ""
    return (
        f"Trials use separate seeds and never see the report rows. {same} the same number of trials.{more} The best "
        "score of a search is the best of several and therefore too good, so the cells are compared by separate final "
        "runs."
    )


def _same_first(searches: Sequence[Mapping[str, Any]], most: int) -> int:
    """Return how many first trials have the same values in every cell, of the settings that all cells search."""
    trials = [[trial["parameters"] for trial in search["trials"][:most]] for search in searches]
    shared = set.intersection(*({*first[0]} if first else set() for first in trials)) if trials else set()
    columns = zip(*([{key: values.get(key) for key in shared} for values in first] for first in trials), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda same: all(values == same[0] for values in same), columns))


def beyond_ranges(search: Mapping[str, Any]) -> int:
    """Return the number of a cell's trials that ``extend`` has added, most of them beyond the ends of its ranges."""
    return sum(bool(trial.get("beyond")) for trial in search["trials"])


def best_trial(search: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the best trial of a search from ``trials.json``."""
    return next((trial for trial in search["trials"] if trial["number"] == search["best"]), None)


def tie_sentences(cell: str, best: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence if other values have the best score too."""
    equal = [t for t in trials if t["value"] == best["value"] and t["parameters"] != best["parameters"]]
    if not equal:
        return []
    other = f"{short_values(equal[0]['parameters'])}" + (f" and {len(equal) - 1} more" if len(equal) > 1 else "")
    return [
        f"{cell}: {other} scored the same as the best values, {short_values(best['parameters'])}; the first counts."
    ]


def edge_sentences(
    cell: str, chosen: Mapping[str, Any], search: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return one sentence for each best value that may have a better one outside of what was tried.

    It is the largest or the smallest of at least two tried values, or at an end of its range: within 2 % of the
    range's width from the end. Pruned and failed trials have tried their values too.
    """
    found = []
    for key, value in chosen.items():
        tried = {trial["parameters"][key] for trial in trials if key in trial["parameters"]}
        extreme, end = _extreme(tried, value), _ends(search["parameters"].get(key, {}), value, tried)
        at_end = "" if end is None else f"at the {end} end of its range"
        if extreme is not None:
            where = f"is the {extreme} of {len(tried)} tried values" + (at_end and f", {at_end}")
            found.append(
                f"{cell}: the best {short(key)}, {_value(value)}, {where}; a better value may be "
                f"{'above' if extreme == 'largest' else 'below'} it."
            )
        elif at_end:
            found.append(
                f"{cell}: the best {short(key)}, {_value(value)}, is {at_end}; a better value may be outside of the "
                "range."
            )
    return found


def _extreme(tried: Set[Any], value: Any) -> str | None:
    if len(tried) < 2 or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in tried):
        return None
    return "largest" if value == max(tried) else "smallest" if value == min(tried) else None


def _ends(parameter: Mapping[str, Any], value: Any, tried: Set[Any]) -> str | None:
    """Return the end of its range that a value is at; the range includes values that were tried beyond it."""
    if "choices" in parameter:
        numbers = parameter["choices"]
        if len(numbers) < 3 or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
            return None
        return "lower" if value == min(numbers) else "upper" if value == max(numbers) else None
    if "low" not in parameter:
        return None
    low, high = min(float(parameter["low"]), *tried), max(float(parameter["high"]), *tried)
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

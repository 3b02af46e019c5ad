"""Whether a study folder belongs to a study: the stored description is compared with that of the current study."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.study.base_model import scored_with
from smoa_lightning.ablation.study.baseline import groups_by_rows
from smoa_lightning.ablation.study.conditions import Condition
from smoa_lightning.ablation.study.objective import Objective
from smoa_lightning.ablation.study.parameters import Parameter
from smoa_lightning.ablation.study.reach import REACH, describe_reach
from smoa_lightning.ablation.study.search_space import Search
from smoa_lightning.ablation.study.space import Contrast, Study
from smoa_lightning.common.checksums import read_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import STUDY, flat

FORMAT = 1
LATE = "changed_after_results"  # changes of a study that already had results, a sentence each
NOT_TESTED = ("retries", "keep")  # changes that no number of a report depends on
REPORTED = ("margin", "secondary", "contrasts", "trade_off", "fewer seeds")  # changes that no run depends on


def describe_study(study: Study) -> dict[str, Any]:
    """Return a study as JSON, with the composed settings of its cells.

    The description is independent of comments, formatting, the order of keys and the places of files. It changes if the
    content of a base file changes.
    """
    cells = {
        cell.name: {
            "signature": cell.signature,
            "labels": dict(cell.labels),
            "values": dict(cell.values),
            "report_metric": cell.report_metric,
            "search_metric": cell.search_metric,
            "settings": study.resolver.content(cell.settings),
        }
        for cell in study.cells
    }
    description = {
        "format": FORMAT,
        "name": study.name,
        "axes": {axis.name: [value.label for value in axis.values] for axis in study.axes},
        "cells": cells,
        "dropped": list(study.dropped),
        "seeds": list(study.seeds),
        "baselines": dict(study.baselines),
        "untouched": scored_with(study),
        "rows": {cell.name: group[0].name for group in groups_by_rows(study.cells, study.resolver) for cell in group},
        "objective": _objective(study.objective),
        "search": None if study.search is None else _search(study.search),
        "retries": study.retries,
        "keep": study.keep,
    }
    secondary = {metric: margin for metric, margin in study.margins.items() if metric in study.secondary}
    if len(secondary) < len(study.margins):
        description["margin"] = next(m for metric, m in study.margins.items() if metric not in secondary)
    if secondary:
        description["secondary_margins"] = secondary
    if study.secondary:
        description["secondary"] = list(study.secondary)
    if study.contrasts:
        description["contrasts"] = {each.name: _contrast(each) for each in study.contrasts}
    if study.trade_off is not None:
        description["trade_off"] = asdict(study.trade_off)
    if study.sources is not None:
        description["sources"] = study.sources
    if reach := describe_reach(study):
        description[REACH] = reach
    if study.contents:
        description["contents"] = study.contents
    return dict(json.loads(json.dumps(description, default=str)))


def check_folder(folder: Path, study: Study) -> list[str]:
    """Compare the study in a folder with the study that will run there.

    A study may get more cells or trials, and more or fewer seeds, also of its search. Settings that only affect the
    report or the handling of failed runs may change.

    Args:
        folder: The study folder, which may not exist yet.
        study: The study.

    Returns:
        The changes, a few words each; empty if the folder has no study yet, or the same study.

    Raises:
        UserError: The folder has a different study, a damaged description, or other files.
    """
    file = folder / STUDY
    if not file.is_file():
        # a start that was killed, or had no space, leaves the journal of no run
        if folder.is_dir() and any(not entry.name.startswith((".", "storage.log")) for entry in folder.iterdir()):
            raise UserError(f"the folder {folder} is not empty, but has no study: choose a different --folder")
        return []
    remedy = "move the folder away or restore the file"
    try:
        stored = read_sealed(file, remedy)
        assert stored is not None
        return compare_descriptions(stored, describe_study(study), str(folder))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}): {remedy}") from error


def check_unchanged(study: Study, folder: Path) -> None:
    """Refuse a study whose file changed after its start, so that all workers do the same study.

    Raises:
        UserError: Something changed that runs or searches depend on.
    """
    changes = [change for change in check_folder(folder, study) if not change.startswith((*NOT_TESTED, *REPORTED))]
    if changes:
        raise UserError(f"the study in {folder} changed after its start ({changes[0]}): stop it, and start it again")


def late_changes(folder: Path, changes: Sequence[str], finished: int) -> list[str]:
    """Return the changes of a study that were made when it had results, those of earlier starts first.

    A margin, a contrast or a seed that is chosen after the results are known is no longer planned, so reports name it.

    Args:
        folder: The study folder, whose description has the earlier ones.
        changes: The changes of this start, from :func:`check_folder`.
        finished: The number of final runs that are finished.
    """
    stored: list[str] = (read_sealed(folder / STUDY) or {}).get(LATE, []) if (folder / STUDY).is_file() else []
    runs = f"{finished} final run{'s' if finished > 1 else ''}"
    new = [f"after {runs}: {change}" for change in changes if finished and not change.startswith(NOT_TESTED)]
    return list(dict.fromkeys([*stored, *new]))


def compare_descriptions(stored: Mapping[str, Any], new: Mapping[str, Any], folder: str) -> list[str]:
    """Compare two descriptions; see :func:`check_folder`.

    Raises:
        UserError: The two studies are different. The message has the first difference and the number of differences.
    """
    if stored["format"] != FORMAT:
        formats = f"its format is {stored['format']}, the format of this version is {FORMAT}"
        raise UserError(f"a different version wrote the folder {folder} ({formats}): choose a different --folder")
    differences = list(_contradictions(stored, new))
    if differences:
        more = f" (first of {len(differences)} differences)" if len(differences) > 1 else ""
        raise UserError(
            f"the folder {folder} has a different study: {differences[0]}{more}; choose a different --folder"
        )
    return list(_changes(stored, new))


def _contradictions(stored: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield the differences because of which the runs in a folder cannot be those of a study."""
    if stored["name"] != new["name"]:
        yield f"its name is {stored['name']!r}, but this study is {new['name']!r}"
    names = {cell["signature"]: name for name, cell in new["cells"].items()}
    for name, cell in stored["cells"].items():
        if cell["signature"] in names:
            if names[cell["signature"]] != name:  # the folders of its runs have the old name
                yield f"its cell {name} has the name {names[cell['signature']]} in this study"
            continue
        if name not in new["cells"]:
            yield f"its cell {name} is not in this study"
            continue
        before, after = flat(cell["settings"]), flat(new["cells"][name]["settings"])
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                yield f"{key} of cell {name} was {_text_of(before, key)} and is {_text_of(after, key)}"
    before, after = stored["search"], new["search"]
    if before is not None and after is not None:
        for key in dict.fromkeys((*before, *after)):
            if key == "trials" and after[key] < before[key]:
                yield f"search.trials was {before[key]} and is {after[key]}"
            elif key == "common" and before.get(key, 0) != after.get(key, 0):
                yield (
                    f"the first {before.get(key, 0)} trials of its cells have the same values, but in this study the "
                    f"first {after.get(key, 0)} (--search.common={before.get(key, 0)} continues it as it began)"
                )
            elif key not in ("trials", "seeds", "common", "extend") and before[key] != after[key]:
                yield f"search.{key} was {json.dumps(before[key])} and is {json.dumps(after[key])}"
    elif before != after:
        yield (
            "it has a search, but this study has none" if after is None else "it has no search, but this study has one"
        )


def _changes(stored: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    known = {cell["signature"] for cell in stored["cells"].values()}
    added = [name for name, cell in new["cells"].items() if cell["signature"] not in known]
    if added:
        more = f" and {len(added) - 1} more" if len(added) > 1 else ""
        yield f"new cells: {added[0]}{more}"
    if seeds := [seed for seed in new["seeds"] if seed not in stored["seeds"]]:
        yield f"new seeds: {', '.join(map(str, seeds))}"
    if seeds := [seed for seed in stored["seeds"] if seed not in new["seeds"]]:
        yield f"fewer seeds: the report leaves out {', '.join(map(str, seeds))}; finished runs stay in the folder"
    if new["search"] is not None and new["search"]["seeds"] != stored["search"]["seeds"]:
        yield (
            f"search.seeds was {json.dumps(stored['search']['seeds'])} and is {json.dumps(new['search']['seeds'])}: "
            "the same trials get scores of these seeds, and finished runs are used again"
        )
    if new["search"] is not None and new["search"]["trials"] > stored["search"]["trials"]:
        yield f"search.trials was {stored['search']['trials']} and is {new['search']['trials']}"
    if new["search"] is not None and (after := new["search"].get("extend")) != stored["search"].get("extend"):
        yield f"search.extend was {json.dumps(stored['search'].get('extend'))} and is {json.dumps(after)}"
    for key in (
        "objective",
        "baselines",
        "retries",
        "keep",
        "secondary",
        "margin",
        "secondary_margins",
        "contrasts",
        "trade_off",
    ):
        before, after = stored.get(key), new.get(key)
        if key == "baselines":  # baselines of new cells are not a change
            before, after = (
                {n: other[n] for n in stored[key].keys() & new[key].keys()} for other in (stored[key], new[key])
            )
            before, after = (sorted(set(other.values())) for other in (before, after))
        if key == "contrasts":  # the weights of new cells are not a change
            before, after = (
                {name: c.get("declared", [c["above"], c["below"]]) for name, c in (other or {}).items()}
                for other in (before, after)
            )
        if before != after:
            yield f"{key} was {json.dumps(before)} and is {json.dumps(after)}"


def _text_of(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key]) if key in settings else "not set"


# ------------------------------------------------------------------------------------------------------------- as JSON


def _contrast(contrast: Contrast) -> dict[str, Any]:
    return {
        "above": contrast.above,
        "below": contrast.below,
        "declared": list(contrast.declared),
        "weights": dict(contrast.weights),
        "cells": list(contrast.cells),
    }


def _objective(objective: Objective) -> dict[str, Any]:
    return {"metric": objective.metric, "direction": objective.direction}


def _search(search: Search) -> dict[str, Any]:
    return {
        "parameters": {p.key: _parameter(p) for p in sorted(search.parameters, key=lambda p: p.key)},
        "trials": search.trials,
        "sampler": {"name": search.sampler.name, **search.sampler.options},
        "pruner": {"name": search.pruner.name, **search.pruner.options},
        "seeds": list(search.seeds),
        "objective": _objective(search.objective),
        **({"common": search.common} if search.common else {}),
        **({} if search.extend is None else {"extend": asdict(search.extend)}),
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    only = {} if parameter.only is None else {"only": _condition(parameter.only)}
    if parameter.choices:
        return {"choices": list(parameter.choices), **only}
    low, high = (int(b) if parameter.integer else float(b) for b in (parameter.low, parameter.high))
    step = None if parameter.step is None else float(parameter.step)
    points = {"points": list(parameter.points)} if parameter.points else {}
    kind = {"log": parameter.log, "step": step, "integer": parameter.integer}
    return {"low": low, "high": high, **kind, **points, **only}


def _condition(condition: Condition) -> dict[str, Any]:
    return {key: [[t.sign, t.operand] for t in tests] for key, tests in sorted(condition.entries.items())}

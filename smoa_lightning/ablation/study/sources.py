"""The sources of a study: decided once, at its first start, and then part of the settings of every run.

Otherwise each run would decide for itself. If the hub did not answer for a while, one cell would have runs on the hub's
model and runs on the embedded one. A branch could also move on between two runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smoa_lightning import embedded
from smoa_lightning.ablation.study.local_files import with_contents
from smoa_lightning.ablation.study.space import Cell, Study
from smoa_lightning.backbones.hub import RepoType, commit_of, resolve_source
from smoa_lightning.common.checksums import read_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.composition import setting_of
from smoa_lightning.data.tasks import get_task
from smoa_lightning.records.record import STUDY

Decided = dict[str, dict[str, Any]]  # a request -> its source and commit


def with_sources(study: Study, folder: Path) -> Study:
    """Return a study whose cells name their sources and commits.

    Decisions that the folder has already are kept. A study that an earlier version began has none: its runs keep
    ``auto``, since its finished runs have it in their signatures.

    Raises:
        UserError: A source is ``hub``, but the hub neither answers nor is cached; two cells become the same; or local
            files changed after the study began.
    """
    stored = read_sealed(folder / STUDY, "move the folder away or restore the file")
    if stored is not None and "sources" not in stored and "cells" in stored:
        return with_contents(study, stored)
    decided: Decided = dict((stored or {}).get("sources", {}))
    cells = tuple(_with_sources(cell, study, decided) for cell in study.cells)
    names: dict[str, str] = {}
    for cell in cells:
        other = names.setdefault(cell.signature, cell.name)
        if other != cell.name:
            raise UserError(f"the cells {other} and {cell.name} have the same sources and settings: drop one of them")
    return with_contents(dataclasses.replace(study, cells=cells, sources=decided), stored)


def _with_sources(cell: Cell, study: Study, decided: Decided) -> Cell:
    flags = {**_backbone(cell, decided), **_data(cell, decided)}
    if not flags:
        return cell
    changed = {**cell.flags, **flags}
    settings = study.resolver.settings(cell.files, changed)
    signature = study.resolver.signature(settings)
    return dataclasses.replace(cell, flags=changed, settings=settings, signature=signature)


def _backbone(cell: Cell, decided: Decided) -> dict[str, Any]:
    """Return the flags for the source of the backbone; empty if nothing is left open."""
    source, name, revision = (
        setting_of(cell.settings, f"model.backbone.{key}") for key in ("source", "name", "revision")
    )
    if source not in ("auto", "hub"):
        return {}
    found = _decide(decided, source, name, "model", revision, embedded_available=True)
    flags = {"model.backbone.source": found["source"]}
    return flags | ({"model.backbone.revision": found["commit"]} if found["commit"] else {})


def _data(cell: Cell, decided: Decided) -> dict[str, Any]:
    """Return the flags for the source of the rows; empty if nothing is left open.

    With several tasks there is no setting for the commit of each. Most tasks pin theirs.
    """
    source, repository, revision = (
        setting_of(cell.settings, f"data.{key}") for key in ("source", "repository", "revision")
    )
    if source not in ("auto", "hub"):
        return {}
    name, mixture, reported = (setting_of(cell.settings, f"data.{key}") for key in ("task", "mixture", "report_tasks"))
    trained = list(mixture or []) if name == "mixture" else [name]
    tasks = [get_task(task) for task in dict.fromkeys([*trained, *(reported or [])])]
    flags: dict[str, Any] = {}
    for task in tasks:
        place = repository or task.hub_repository
        if place is None:
            return {}  # the run says that this task has no rows on the hub
        pinned = revision or (None if repository else task.hub_revision)
        found = _decide(decided, source, place, "dataset", pinned, task.name in embedded.TASKS)
        if flags.setdefault("data.source", found["source"]) != found["source"]:
            return {}  # the run refuses tasks from different sources
        if len(tasks) == 1 and found["commit"] not in (None, pinned):
            flags["data.revision"] = found["commit"]
    return flags


def _decide(
    decided: Decided, source: str, name: str, kind: RepoType, revision: str | None, embedded_available: bool
) -> dict[str, Any]:
    request = f"{kind} {name}@{revision or 'main'} from {source}"
    if request not in decided:
        chosen = resolve_source(source, name, kind, revision, embedded_available)
        commit = commit_of(name, kind, revision) if chosen == "hub" else None
        decided[request] = {"source": chosen, "commit": commit}
    return decided[request]


def lines(sources: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    """Return the decisions as text, one line for each."""
    return [
        f"{request}: {found['source']}" + (f", commit {found['commit'][:12]}" if found["commit"] else "")
        for request, found in (sources or {}).items()
    ]

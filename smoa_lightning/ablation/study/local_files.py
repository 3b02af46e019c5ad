"""The local files that a study reads: their digests at its first start, compared at each start and before each run.

The signature of a run has the path of local rows or of a local backbone, but not their content.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.study.space import Cell, Study
from smoa_lightning.common.checksums import sha256
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.paths import absolute, local_path
from smoa_lightning.configuration.composition import value_at
from smoa_lightning.records.adapter_places import BEST

Facts = Mapping[str, Any]  # size, time of the last change, and SHA-256 of a file
Contents = Mapping[str, Mapping[str, Facts]]  # place, as an absolute path or pattern -> file -> its facts


def with_contents(study: Study, stored: Mapping[str, Any] | None) -> Study:
    """Return a study with the digests of its local files, and each cell with the digest of those that it reads.

    Args:
        study: The study, with its sources decided.
        stored: The description in its folder; ``None`` before its first start. A study that an earlier version began
            has no digests.

    Raises:
        UserError: Files changed after the study began; the message names them.
    """
    before: Contents = (stored or {}).get("contents", {})
    places = dict.fromkeys(place for cell in study.cells for place in _places(cell))
    if not places:
        return study
    contents = {place: _facts_of(place, before.get(place, {})) for place in places}
    _compare(before, contents)
    cells = tuple(dataclasses.replace(cell, content=_digest(cell, contents)) for cell in study.cells)
    return dataclasses.replace(study, cells=cells, contents=contents)


def check_contents(contents: Contents) -> None:
    """Compare local files with their digests; only files with a new size or time are read.

    Raises:
        UserError: Files changed; the message names them.
    """
    _compare(contents, {place: _facts_of(place, files) for place, files in contents.items()})


def _places(cell: Cell) -> Iterator[str]:
    """Yield the folders, files and patterns that a cell reads, without URLs."""
    given: list[Any] = []
    if value_at(cell.settings, "model.backbone.source") == "local":
        given.append(value_at(cell.settings, "model.backbone.path"))
    if value_at(cell.settings, "data.source") == "local":
        given.append(value_at(cell.settings, "data.path"))
    teacher = value_at(cell.settings, "model.distillation.teacher")
    if isinstance(teacher, str) and local_path(teacher).exists():
        best = local_path(teacher) / BEST  # of a run, whose other files do not matter
        given.append(str(best) if best.is_dir() else teacher)
    given.append(value_at(cell.settings, "forgetting.text"))
    while given:
        value = given.pop(0)
        if isinstance(value, Mapping):
            given += value.values()
        elif isinstance(value, list):
            given += value
        elif isinstance(value, str) and "://" not in value:
            yield absolute(value)


def _facts_of(place: str, known: Mapping[str, Facts]) -> dict[str, Facts]:
    """Return the facts about the files of a place; a file with the known size and time is not read again."""
    facts: dict[str, Facts] = {}
    for file in _files(place):
        status = file.stat()
        size, changed = status.st_size, status.st_mtime_ns
        old = known.get(str(file), {})
        same = (old.get("size"), old.get("changed")) == (size, changed)
        facts[str(file)] = {"size": size, "changed": changed, "sha256": old["sha256"] if same else sha256(file)}
    return facts


def _files(place: str) -> list[Path]:
    """Return the files of a folder, a file or a pattern, without hidden files and texts about the folder."""
    path = Path(place)
    if path.is_dir():
        found = [file for file in path.rglob("*") if not any(p.startswith(".") for p in file.relative_to(path).parts)]
    else:
        found = [path] if path.exists() else [Path(file) for file in glob.glob(place, recursive=True)]
    return sorted(file for file in found if file.is_file() and file.suffix.lower() not in (".md", ".lock"))


def _compare(before: Contents, now: Contents) -> None:
    changed = [
        file
        for place in before.keys() & now.keys()
        for file in before[place].keys() | now[place].keys()
        if before[place].get(file, {}).get("sha256") != now[place].get(file, {}).get("sha256")
    ]
    if changed:
        more = f" and {len(changed) - 1} more files" if len(changed) > 1 else ""
        raise UserError(
            f"{min(changed)}{more} changed after the study began, so its runs would not be comparable: restore the "
            "files, or give the study a different name"
        )


def _digest(cell: Cell, contents: Contents) -> str:
    """Return the digest of all local files that a cell reads; empty if it reads none."""
    found = [sorted(facts["sha256"] for facts in contents[place].values()) for place in _places(cell)]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16] if found else ""

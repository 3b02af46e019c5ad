"""Rows of a split from the hub, from local files or from the package, each checked against the task's schema.

A bad row is an error that names the place, the row and the field; it never makes a source fall back to another one.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from smoa_lightning.backbones.hub import Source, cached_snapshot, hub_answers, hub_errors
from smoa_lightning.common.atomic_files import cache_folder
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.arrow_file import Writer, code_digest, in_cache, in_memory, in_scratch_file, key_of
from smoa_lightning.data.rows.columnar_readers import is_saved, read_saved
from smoa_lightning.data.rows.located import Located
from smoa_lightning.data.rows.locations import identity, is_empty
from smoa_lightning.data.rows.readers import read_file
from smoa_lightning.data.rows.row_table import SCHEMA, RowTable, write_rows
from smoa_lightning.data.rows.split_files import SPLIT_NAMES, LocalPath, holds, is_whole, split_files
from smoa_lightning.data.tasks import Row, Task

# The data files of a repository and the card that assigns them to splits: no scripts, images, archives.
HUB_PATTERNS = ["*.parquet", "*.jsonl", "*.json", "*.csv", "*.tsv", "*.gz", "README.md", ".huggingface.yaml"]


@dataclass(frozen=True)
class Origin:
    """Where a task's rows are taken from.

    Args:
        source: ``hub``, ``local`` or ``embedded``: resolved, see ``smoa_lightning.backbones.hub.resolve_source``.
        path: With ``local``: a file (training rows), a folder of split files, or split -> file.
        repository: With ``hub``: the repository.
        revision: With ``hub``: branch, tag or commit.
    """

    source: Source
    path: LocalPath | None = None
    repository: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Provenance:
    """What was read for a split.

    Rows are those that a task makes of the rows in the file: of a dialogue one for each reply.

    Args:
        source: ``hub``, ``local`` or ``embedded``.
        location: Repository, file or part of the package.
        revision: Revision asked for on the hub, else None.
        commit: Commit that the hub served, else None.
        sha256: SHA-256 of the checked rows in their order: the same for one content in whatever format.
        num_rows: Rows kept.
        num_bad_rows: Rows of the file left out because they broke the schema (with ``bad_rows: skip``).
    """

    source: Source
    location: str
    revision: str | None
    commit: str | None
    sha256: str
    num_rows: int
    num_bad_rows: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-safe dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class _Raw:
    """The raw rows of a split.

    Args:
        location: Repository, file or part of the package.
        read: Begins to read the rows.
        identity: What changes when the rows do; None: that is not known, so nothing is kept.
        commit: Commit that the hub served.
        few: Whether they are few enough to be in memory.
    """

    location: str
    read: Callable[[], Iterator[Located]]
    identity: Any = None
    commit: str | None = None
    few: bool = False


def load_split(
    task: Task, split: str, origin: Origin, bad_rows: Literal["error", "skip"] = "error", cache: bool = False
) -> tuple[RowTable, Provenance]:
    """Return the checked rows of a split and their provenance.

    With ``cache`` they are written to the cache folder once and found there again, under a digest of what decides
    them: the files, the task, what is done with bad rows, and the code that reads and checks them.

    Raises:
        UserError: a missing, empty or unreadable file; a row that breaks the schema; a repository that is missing,
            gated, out of reach or without this split.
    """
    raw = _raw_rows(task, split, origin)

    def fill(writer: Writer) -> dict[str, Any]:
        facts = write_rows(writer, task, raw.read(), skip=bad_rows == "skip")
        if not writer.count:
            raise UserError(f"{raw.location}: no usable rows for split {split!r} of task {task.name!r}.")
        return facts

    if raw.few:
        table = in_memory(SCHEMA, fill)
    elif cache and raw.identity is not None:
        own = {"task": task.name, "version": task.version, "fields": dict(task.fields), "bad_rows": bad_rows}
        key = key_of(rows=raw.identity, split=split, code=code_digest(), **own)
        table = in_cache(cache_folder("rows"), key, SCHEMA, fill)
    else:
        table = in_scratch_file(SCHEMA, fill)
    rows = RowTable(table)
    facts = origin.source, raw.location, origin.revision, raw.commit, rows.sha256, len(rows), rows.num_bad
    return rows, Provenance(*facts)


def _raw_rows(task: Task, split: str, origin: Origin) -> _Raw:
    if origin.source == "hub":
        assert origin.repository is not None
        snapshot = fetch(origin.repository, origin.revision)
        read = functools.partial(_hub_rows, task, split, snapshot, origin.repository)
        return _Raw(origin.repository, read, [origin.repository, snapshot.name, task.hub_config], snapshot.name)
    if origin.source == "local":
        files = split_files(origin.path, split)
        identities = [identity(file) for file in files]
        others = f" and {len(files) - 1} more" if len(files) > 1 else ""
        known = None if None in identities else identities
        return _Raw(files[0] + others, functools.partial(_file_rows, files, task), known)
    location = f"embedded {task.name}/{split}"
    numbered = enumerate(_embedded_rows(task, split), start=1)
    return _Raw(location, lambda: (Located(f"{location}, row {n}", row) for n, row in numbered), few=True)


def _file_rows(files: list[str], task: Task) -> Iterator[Located]:
    """Yield the rows of files, one after the other.

    Raises:
        UserError: a file that is missing, damaged or of no known format; a single one without rows.
    """
    for file in files:
        saved, alone = is_saved(file), len(files) == 1
        if alone and not saved and is_empty(file):
            raise UserError(f"{file}: the file is empty.")
        rows = read_saved(file) if saved else read_file(file, task)
        first = next(rows, None)
        if first is not None:
            yield from itertools.chain([first], rows)
        elif alone:
            raise UserError(f"{file}: the file holds no rows.")


def has_split(task: Task, split: str, origin: Origin) -> bool:
    """Say whether there is such a split: a single local file holds training rows only.

    Raises:
        UserError: a folder or mapping with several files for the split, or without one for a split that the data set
            has on the hub.
    """
    if origin.source == "hub":
        return split in task.splits
    if origin.source == "embedded":
        return split in SPLIT_NAMES
    if is_whole(origin.path):
        return split == task.train_split
    if split not in task.splits and not holds(origin.path, split):
        return False
    return bool(split_files(origin.path, split))


def known_splits(task: Task, source: str) -> tuple[str, ...]:
    """Return the splits that may be asked for: on the hub those of the data set, elsewhere each that a file can hold.

    GSM8K has no validation split on the hub, but a folder of its rows may, and the embedded rows of every task do.
    """
    return tuple(task.splits) if source == "hub" else tuple(dict.fromkeys([*task.splits, *SPLIT_NAMES]))


def fetch(repository: str, revision: str | None) -> Path:
    """Return the snapshot folder of a data set, named by its commit; downloads what the cache lacks.

    The snapshot is used rather than ``datasets.load_dataset(repository)`` since that falls back to *any* cached version
    of the repository when something fails, whatever revision was asked for.

    Raises:
        UserError: a repository that is missing, gated, or out of reach.
    """
    from huggingface_hub import snapshot_download

    pinned = re.fullmatch(r"[0-9a-f]{40}", revision or "") and cached_snapshot(repository, "dataset", revision)
    offline = bool(pinned) or not hub_answers()  # without this, a silent hub costs many seconds of retries
    with hub_errors(repository, "dataset", revision):
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            local_files_only=offline,
            allow_patterns=HUB_PATTERNS,
        )
    return Path(folder)


def _hub_rows(task: Task, split: str, snapshot: Path, repository: str) -> Iterator[Located]:
    """Yield the rows of a split of a snapshot; the data set's card or file names tell which files these are.

    They are read as they are asked for, without a copy of the split in the cache of ``datasets``.

    Raises:
        UserError: the snapshot has no such split.
    """
    import datasets

    name = f"{repository}@{snapshot.name[:12]}"
    try:
        table = datasets.load_dataset(str(snapshot), name=task.hub_config, split=split, streaming=True)
    except (ValueError, datasets.exceptions.DatasetsError, FileNotFoundError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{name}: no split {split!r} of task {task.name!r} can be read there ({reason}).") from error
    number = 0
    for columns in table.iter(batch_size=1000):
        for values in zip(*columns.values(), strict=True):
            number += 1
            yield Located(f"{name} {split}, row {number}", dict(zip(columns, values, strict=True)))


def _embedded_rows(task: Task, split: str) -> list[Row]:
    from smoa_lightning import embedded

    if task.name not in embedded.TASKS:
        raise UserError(f"task {task.name!r} has no embedded rows; use source hub or local.")
    return embedded.rows(task.name, split)

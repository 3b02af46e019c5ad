"""Rows of a split from the hub, from local files or from the package, each checked against the task's schema.

A bad row is an error that names the place, the row and the field. No source falls back to a different source.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from smoa_lightning import embedded
from smoa_lightning.backbones.hub import Source, cached_snapshot, hub_answers, hub_errors, remember_commit
from smoa_lightning.common.atomic_files import cache_folder
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.process_cache import cached
from smoa_lightning.data.rows.arrow_file import code_digest, in_cache, in_memory, in_scratch_file, key_of
from smoa_lightning.data.rows.arrow_writer import Writer
from smoa_lightning.data.rows.columnar_readers import is_saved, numbered_names, read_saved, with_names
from smoa_lightning.data.rows.image_folders import is_image_folder, read_images
from smoa_lightning.data.rows.located import Located
from smoa_lightning.data.rows.locations import SPLIT_NAMES, identity, is_empty
from smoa_lightning.data.rows.readers import read_file
from smoa_lightning.data.rows.row_table import SCHEMA, RowTable, write_rows
from smoa_lightning.data.rows.split_files import LocalPath, has_files, is_training_rows, split_files
from smoa_lightning.data.tasks import Row, Task, registered_tasks
from smoa_lightning.data.tasks.image_field import Picture

IMAGES = (
    "images"  # the fact of a table: path (as named and in full), size and time of each image file that its rows name
)
# The data files of a repository and the card that assigns them to splits: no scripts, images, archives.
HUB_PATTERNS = ["*.parquet", "*.jsonl", "*.json", "*.csv", "*.tsv", "*.gz", "README.md", ".huggingface.yaml"]


@dataclass(frozen=True)
class Origin:
    """The place of the rows of a task.

    Args:
        source: ``hub``, ``local`` or ``embedded``, see ``smoa_lightning.backbones.hub.resolve_source``.
        path: With ``local``: a file (training rows), a folder of split files, or split -> file.
        repository: With ``hub``: the repository.
        revision: With ``hub``: branch, tag or commit.
        commit: With ``hub``: the commit of the revision, if it is known.
    """

    source: Source
    path: LocalPath | None = None
    repository: str | None = None
    revision: str | None = None
    commit: str | None = None


@dataclass(frozen=True)
class Provenance:
    """The origin of the rows of a split.

    ``num_rows`` counts the rows that the task makes of the rows in the file: a dialogue has one for each reply.

    Args:
        source: ``hub``, ``local`` or ``embedded``.
        location: Repository, file or part of the package.
        revision: Requested revision on the hub, else None.
        commit: Commit on the hub, else None.
        sha256: SHA-256 of the checked rows in their order; the same content has the same digest in every format.
        num_rows: Number of checked rows.
        num_bad_rows: Number of rows of the file that break the schema and are left out (with ``bad_rows: skip``).
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
        read: Starts to read the rows.
        identity: A value that changes when the rows change; None: unknown, so the rows are not cached.
        commit: Commit on the hub.
        in_memory: Whether the rows are few enough for memory.
        names_images: Whether rows of a file may name images by their path.
    """

    location: str
    read: Callable[[], Iterator[Located]]
    identity: Any = None
    commit: str | None = None
    in_memory: bool = False
    names_images: bool = False


def load_split(
    task: Task, split: str, origin: Origin, bad_rows: Literal["error", "skip"] = "error", cache: bool = False
) -> tuple[RowTable, Provenance]:
    """Return the checked rows of a split and their provenance.

    With ``cache`` the rows are in the cache folder. Their key is a digest of everything that decides them: the files,
    the task, the treatment of bad rows, and the code that reads and checks them.

    Raises:
        UserError: a missing, empty or unreadable file; a row that breaks the schema; a repository that is missing,
            gated or not reachable, or that does not have this split.
    """
    raw = _raw_rows(task, split, origin)

    def fill(writer: Writer) -> dict[str, Any]:
        images: list[Any] = []
        located = _noting_images(task, raw.read(), images) if raw.names_images else raw.read()
        facts = write_rows(writer, task, located, skip=bad_rows == "skip")
        if not writer.count:
            raise UserError(f"{raw.location}: no usable rows for split {split!r} of task {task.name!r}.")
        return {**facts, IMAGES: images}

    own = {"task": task.name, "version": task.version, "fields": dict(task.fields), "bad_rows": bad_rows}
    own |= dict(task.options)
    if raw.in_memory:
        table = cached("embedded rows", (split, repr(own)), lambda: in_memory(SCHEMA, fill))
    elif cache and raw.identity is not None and task.name not in registered_tasks():  # whose code may have changed
        key = key_of(rows=raw.identity, split=split, code=code_digest(), **own)
        table = in_cache(cache_folder("rows"), key, SCHEMA, fill)
        noted = table.facts[IMAGES]
        found = [_status(Path(place)) for place, *_ in noted]
        if found != noted:  # an image has changed since then, and the file with its name has not
            table = in_cache(cache_folder("rows"), key_of(key=key, images=found), SCHEMA, fill)
    else:
        table = in_scratch_file(SCHEMA, fill)
    rows = RowTable(table)
    facts = origin.source, raw.location, origin.revision, raw.commit, rows.sha256, len(rows), rows.num_bad
    return rows, Provenance(*facts)


def _noting_images(task: Task, located: Iterator[Located], images: list[Any]) -> Iterator[Located]:
    """Yield raw rows, and add path, size and time of the image files that they name by their path."""
    columns = [str(task.fields.get(name, name)) for name, field in task.schema.items() if isinstance(field, Picture)]
    for each in located:
        for value in (each.row.get(column) for column in columns if isinstance(each.row, dict)):
            if isinstance(value, dict) and not value.get("bytes") and value.get("path"):
                images.append(_status(Path(str(value["path"]))))
        yield each


def _status(file: Path) -> list[Any]:
    try:
        status = file.stat()
    except (OSError, ValueError):  # the row is refused when the image is read
        return [str(file), str(file.absolute())]
    return [str(file), str(file.absolute()), status.st_size, status.st_mtime_ns]


def _raw_rows(task: Task, split: str, origin: Origin) -> _Raw:
    if origin.source == "hub":
        assert origin.repository is not None
        snapshot = fetch(origin.repository, origin.commit or origin.revision)
        remember_commit(origin.repository, "dataset", origin.revision, snapshot.name)
        read = functools.partial(_hub_rows, task, split, snapshot, origin.repository)
        return _Raw(origin.repository, read, [origin.repository, snapshot.name, task.hub_config], snapshot.name)
    if origin.source == "local":
        files = split_files(origin.path, split)
        identities = [identity(file) for file in files]
        others = f" and {len(files) - 1} more" if len(files) > 1 else ""
        known = None if None in identities else identities
        named = _has_images(task) and not all(map(is_image_folder, files))
        return _Raw(files[0] + others, functools.partial(_file_rows, files, task), known, names_images=named)
    location = f"embedded {task.name}/{split}"
    numbered = enumerate(_embedded_rows(task, split), start=1)
    return _Raw(location, lambda: (Located(f"{location}, row {n}", row) for n, row in numbered), in_memory=True)


def _file_rows(files: list[str], task: Task) -> Iterator[Located]:
    """Yield the rows of files, one after the other.

    Raises:
        UserError: a file that is missing, damaged or in an unknown format; a single file without rows.
    """
    for file in files:
        alone = len(files) == 1
        if alone and is_empty(file):
            raise UserError(f"{file}: the file is empty.")
        rows = _rows_of(file, task)
        first = next(rows, None)
        if first is not None:
            yield from itertools.chain([first], rows)
        elif alone:
            raise UserError(f"{file}: the file holds no rows.")


def _rows_of(place: str, task: Task) -> Iterator[Located]:
    """Return the rows of a file, a saved folder or a folder of images."""
    if is_saved(place):
        return read_saved(place, task)
    return read_images(place) if is_image_folder(place) else read_file(place, task)


def has_split(task: Task, split: str, origin: Origin) -> bool:
    """Return whether the split exists; a single local file holds training rows only.

    Raises:
        UserError: a folder or mapping with several files for the split, or without a file for a split that the data set
            has on the hub.
    """
    if origin.source == "hub":
        return split in task.splits
    if origin.source == "embedded":
        return split in SPLIT_NAMES or split in embedded.ALIASES
    if is_training_rows(origin.path):
        return split == task.train_split
    if split not in task.splits and not has_files(origin.path, split):
        return False
    return bool(split_files(origin.path, split))


def known_splits(task: Task, source: str) -> tuple[str, ...]:
    """Return the valid names of splits: on the hub those of the data set, elsewhere also ``SPLIT_NAMES``.

    For example, GSM8K has no validation split on the hub, but a local folder may have one, and the embedded rows do.
    """
    return tuple(task.splits) if source == "hub" else tuple(dict.fromkeys([*task.splits, *SPLIT_NAMES]))


def fetch(repository: str, revision: str | None) -> Path:
    """Return the snapshot folder of a data set, named by its commit. Files that are not in the cache are downloaded.

    ``datasets.load_dataset(repository)`` is not used: if something fails, it falls back to *any* cached version of the
    repository and ignores the requested revision.

    Raises:
        UserError: a repository that is missing, gated or not reachable.
    """
    from huggingface_hub import snapshot_download

    pinned = re.fullmatch(r"[0-9a-f]{40}", revision or "") and cached_snapshot(repository, "dataset", revision)
    offline = bool(pinned) or not hub_answers()  # without this, a hub that does not answer costs seconds of retries
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
    """Yield the rows of a split of a snapshot; the card or the file names of the data set decide which files these are.

    The rows are read one after the other, without a copy of the split in the cache of ``datasets``.

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
    if _has_images(task):
        table = table.decode(False)  # the bytes of the files, and not their pixels
    features = table.features or {}
    numbered = numbered_names(task, {c: f.names for c, f in features.items() if isinstance(f, datasets.ClassLabel)})
    number = 0
    for columns in table.iter(batch_size=1000):
        for values in zip(*columns.values(), strict=True):
            number += 1
            row = with_names(dict(zip(columns, values, strict=True)), numbered)
            yield Located(f"{name} {split}, row {number}", row)


def _has_images(task: Task) -> bool:
    return any(isinstance(field, Picture) for field in task.schema.values())


def _embedded_rows(task: Task, split: str) -> list[Row]:
    if task.name not in embedded.TASKS:
        raise UserError(f"task {task.name!r} has no embedded rows; use source hub or local.")
    return embedded.rows(task.name, split)

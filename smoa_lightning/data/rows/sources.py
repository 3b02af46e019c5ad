"""Rows of a split from the hub, from local files or from the package, each checked against the task's schema.

A bad row is an error that names the place, the row and the field; it never makes a source fall back to another one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from smoa_lightning.backbones.hub import Source, cached_snapshot, hub_answers, hub_errors
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.data.rows.readers import READERS, Located, read_file
from smoa_lightning.data.tasks import Row, RowError, Task

# What the file of a split may be called in a folder; the first name that is there is taken.
SPLIT_NAMES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}

# The data files of a repository and the card that assigns them to splits: no scripts, images, archives.
HUB_PATTERNS = ["*.parquet", "*.jsonl", "*.json", "*.csv", "*.tsv", "*.gz", "README.md", ".huggingface.yaml"]

LocalPath = str | Mapping[str, str]


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


def load_split(
    task: Task, split: str, origin: Origin, bad_rows: Literal["error", "skip"] = "error"
) -> tuple[list[Row], Provenance]:
    """Return the checked rows of a split and their provenance.

    Raises:
        UserError: a missing, empty or unreadable file; a row that breaks the schema; a repository that is missing,
            gated, out of reach or without this split.
    """
    located: Iterable[Located]
    commit = None
    if origin.source == "hub":
        assert origin.repository is not None
        snapshot = fetch(origin.repository, origin.revision)
        located, location, commit = hub_rows(task, split, snapshot, origin.repository), origin.repository, snapshot.name
    elif origin.source == "local":
        file = split_file(origin.path, split)
        located, location = read_file(file, task), str(file)
    else:
        location = f"embedded {task.name}/{split}"
        located = [Located(f"{location}, row {n}", row) for n, row in enumerate(_embedded_rows(task, split), start=1)]
    rows, num_bad = check_rows(task, located, skip=bad_rows == "skip")
    if not rows:
        raise UserError(f"{location}: no usable rows for split {split!r} of task {task.name!r}.")
    digest = rows_digest(rows)
    return rows, Provenance(origin.source, location, origin.revision, commit, digest, len(rows), num_bad)


def check_rows(task: Task, located: Iterable[Located], skip: bool = False) -> tuple[list[Row], int]:
    """Return the rows as the schema wants them, each with all that it stands for, and how many broke it.

    Raises:
        UserError: the first bad row with its place and field, unless ``skip``.
    """
    rows: list[Row] = []
    num_bad = 0
    for place, row in located:
        try:
            rows += task.rows_of(row)
        except RowError as error:
            if not skip:
                raise UserError(f"{place}: {error}.") from None
            num_bad += 1
    return rows, num_bad


def rows_digest(rows: Iterable[Row]) -> str:
    """Return the SHA-256 over the rows as JSON lines with sorted keys.

    >>> rows_digest([{"b": 1, "a": 2}]) == rows_digest([{"a": 2, "b": 1}])
    True
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


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
    if isinstance(origin.path, str) and Path(origin.path).expanduser().is_file():
        return split == task.train_split
    if split not in task.splits and not _holds(origin.path, split):
        return False
    split_file(origin.path, split)
    return True


def known_splits(task: Task, source: str) -> tuple[str, ...]:
    """Return the splits that may be asked for: on the hub those of the data set, elsewhere each that a file can hold.

    GSM8K has no validation split on the hub, but a folder of its rows may, and the embedded rows of every task do.
    """
    return tuple(task.splits) if source == "hub" else tuple(dict.fromkeys([*task.splits, *SPLIT_NAMES]))


def _holds(path: LocalPath | None, split: str) -> bool:
    """Whether a folder or mapping has a file for a split."""
    check_path(path)
    if isinstance(path, Mapping):
        return split in path
    names = SPLIT_NAMES.get(split, (split,))
    return any((Path(str(path)).expanduser() / f"{name}{ending}").is_file() for name in names for ending in READERS)


def check_path(path: LocalPath | None) -> None:
    """Refuse a path that can hold no rows at all, before anything is read.

    Raises:
        UserError: no path; a path that does not exist.
    """
    if path is None:
        raise UserError("data.path: source local needs a file or a folder of split files such as train.jsonl.")
    for place in [path] if isinstance(path, str) else path.values():
        if not Path(place).expanduser().exists():
            raise UserError(f"data.path: {place} does not exist.")


def split_file(path: LocalPath | None, split: str) -> Path:
    """Return the local file of a split.

    A file holds the training rows. A folder holds one file a split: ``train.jsonl``, ``validation.parquet``, ...

    Raises:
        UserError: no path; no such file or folder; a folder without this split, or with two files for it.
    """
    check_path(path)
    if isinstance(path, Mapping):
        if split not in path:
            raise UserError(f"data.path: names no file for split {split!r}, only for {', '.join(path) or 'none'}.")
        return Path(path[split]).expanduser()
    place = Path(str(path)).expanduser()
    if place.is_file():
        if split != "train":
            raise UserError(
                f"data.path: the single file {place} holds training rows, so there is no split {split!r};"
                f" give a folder of split files, or one file for each split."
            )
        return place
    for name in SPLIT_NAMES.get(split, (split,)):
        files = [place / f"{name}{ending}" for ending in READERS if (place / f"{name}{ending}").is_file()]
        if len(files) > 1:
            raise UserError(f"data.path: split {split!r} is ambiguous: {' and '.join(map(str, files))}.")
        if files:
            return files[0]
    present = sorted(file.name for file in place.iterdir() if file.suffix in READERS)
    wanted = f"{SPLIT_NAMES.get(split, (split,))[0]}.jsonl"
    seen = f"nearest: {nearest(wanted, present, 3)}" if present else "it holds no data file"
    raise UserError(f"data.path: no file for split {split!r} (such as {wanted}) in {place}; {seen}.")


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


def hub_rows(task: Task, split: str, snapshot: Path, repository: str, streaming: bool = False) -> Iterator[Located]:
    """Yield the rows of a split of a snapshot; the data set's card or file names tell which files these are.

    Args:
        task: The task, which names the configuration.
        split: The split.
        snapshot: What ``fetch`` returned.
        repository: The repository's name, for errors.
        streaming: Read the rows as they are asked for, without a copy of the split in the cache of ``datasets``.

    Raises:
        UserError: on the first row, where the snapshot has no such split.
    """
    import datasets

    name = f"{repository}@{snapshot.name[:12]}"
    try:
        table = datasets.load_dataset(str(snapshot), name=task.hub_config, split=split, streaming=streaming)
    except (ValueError, datasets.exceptions.DatasetsError, FileNotFoundError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        whole = f"{name}: no split {split!r} of task {task.name!r} can be read there"
        told = f"{name} {split}: these rows can not be streamed" if streaming else whole
        raise UserError(f"{told} ({reason}).") from error
    for number, row in enumerate(table, start=1):
        yield Located(f"{name} {split}, row {number}", row)


def _embedded_rows(task: Task, split: str) -> list[Row]:
    from smoa_lightning import embedded

    if task.name not in embedded.TASKS:
        raise UserError(f"task {task.name!r} has no embedded rows; use source hub or local.")
    return embedded.rows(task.name, split)

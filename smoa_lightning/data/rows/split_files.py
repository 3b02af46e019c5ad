"""The files of a split: one file, a pattern, numbered parts, a sub-folder, or a list of these."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.common.paths import check_rows, is_pattern
from smoa_lightning.data.rows.columnar_readers import is_saved
from smoa_lightning.data.rows.image_folders import check_classes, is_image_folder
from smoa_lightning.data.rows.located import split_ending
from smoa_lightning.data.rows.locations import (
    ALL_SPLIT_NAMES,
    SPLIT_NAMES,
    check_regular,
    entries,
    exists,
    is_file,
    is_folder,
    joined,
    matches,
    plain,
)
from smoa_lightning.data.rows.readers import is_data

LocalPath = str | Mapping[str, str | Sequence[str]]

PART = re.compile(r"[-_.](?:part|shard)?[-_.]?(\d+)(?:[-_.]of[-_.](\d+))?")  # after the name of a split


def check_path(path: LocalPath | None) -> None:
    """Refuse a path without any file, before rows are read.

    Raises:
        UserError: no path; a path that does not exist, or is a pipe or device; a pattern that matches no file.
    """
    if path is None:
        raise UserError("data.path: source local needs a file or a folder of split files such as train.jsonl.")
    for value in [path] if isinstance(path, str) else path.values():
        for place in [value] if isinstance(value, str) else value:
            there = exists(place)
            check_rows(place, there)
            if not there and not matches(place):
                raise UserError(f"data.path: no file matches {place}.")
            check_regular(place)


def is_training_rows(path: LocalPath | None) -> bool:
    """Return whether a path names training rows directly; else it is a folder or mapping of splits."""
    return isinstance(path, str) and (
        is_file(path) or (not exists(path) and is_pattern(path)) or is_saved(path) or is_image_folder(path)
    )


def has_files(path: LocalPath | None, split: str) -> bool:
    """Return whether there are files for a split.

    Raises:
        UserError: the split is ambiguous.
    """
    check_path(path)
    if isinstance(path, Mapping):
        return bool(path.get(split))
    return split == "train" if is_training_rows(path) else bool(_in_folder(str(path), split))


def split_files(path: LocalPath | None, split: str) -> list[str]:
    """Return the files of a split, in the order in which they are read.

    A pipe or a device is no file.

    Args:
        path: A file, a pattern or a folder of ``save_to_disk`` with training rows; a folder of split files
            (``train.jsonl``, ``train-00000-of-00003.parquet``, ``train/``, also under ``data/``); or split -> files.
        split: Name of the split.

    Raises:
        UserError: no path; no such file or folder; no file for the split, or an ambiguous split.
    """
    files = _split_files(path, split)
    for file in files:
        check_regular(file)
    return files


def _split_files(path: LocalPath | None, split: str) -> list[str]:
    check_path(path)
    if isinstance(path, Mapping):
        places = path.get(split, ())
        if not places:
            named = ", ".join(name for name in path if path[name]) or "none"
            raise UserError(f"data.path: there is no file for split {split!r}; the splits with files are {named}.")
        return [file for place in ([places] if isinstance(places, str) else places) for file in _files_of(place)]
    assert path is not None
    if is_training_rows(path):
        if split != "train":
            raise UserError(
                f"data.path: {path} holds training rows alone, so there is no split {split!r}; give a folder with each "
                "split, or a place for each split."
            )
        return _files_of(path)
    if files := _in_folder(path, split):
        return files
    raise _no_file(path, split)


def _no_file(folder: str, split: str) -> UserError:
    """Return the error about a folder without a file for a split: of texts, or of images.

    Raises:
        UserError: Images are not in folders of classes.
    """
    found, names = entries(folder), SPLIT_NAMES.get(split, (split,))
    present = sorted(name for name, is_sub in found.items() if not is_sub and is_data(name))
    hint = "" if split == "train" else "; name the training file itself to train without report rows"
    if not present:
        images = [name for name in sorted(found) if found[name] and is_image_folder(joined(folder, name))]
        of_splits = [n for n, is_sub in found.items() if is_sub and n.lower() in ALL_SPLIT_NAMES]
        for place in (*([] if images else [folder]), *(joined(folder, name) for name in of_splits)):
            check_classes(place)
        if images:
            return UserError(
                f"data.path: no folder for split {split!r} (such as {names[0]}/cat/1.jpg) in {folder}; the folders "
                f"with images are {', '.join(images)}{hint.replace('file', 'folder')}."
            )
    wanted = f"{names[0]}.jsonl"
    seen = f"nearest: {nearest(wanted, present, 3)}" if present else "it holds no data file"
    if not present and (inside := _with_split(folder, found, split)):
        seen += f"; {' and '.join(inside)} {'do' if len(inside) > 1 else 'does'}"
    return UserError(f"data.path: no file for split {split!r} (such as {wanted}) in {folder}; {seen}{hint}.")


def _with_split(folder: str, found: Mapping[str, bool], split: str) -> list[str]:
    """Return up to two folders in a folder that have a split, for a message."""
    inside = []
    for place in (joined(folder, name) for name in sorted(found) if found[name]):
        with contextlib.suppress(UserError):
            inside += [place] if _in_folder(place, split) else []
        if len(inside) == 2:
            break
    return inside


def _natural(name: str) -> list[Any]:
    """Return a key that sorts ``part-2`` before ``part-10``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _files_of(place: str) -> list[str]:
    """Return the files of a place: the file or saved folder itself, the matches of a pattern, or a folder's files."""
    if is_file(place) or is_saved(place) or is_image_folder(place):
        return [plain(place)]
    if not exists(place):
        return sorted(matches(place), key=_natural)
    files = _data_files(place)
    if not files:
        check_classes(place)
        raise UserError(f"data.path: the folder {place} holds no data file.")
    return files


def _data_files(folder: str) -> list[str]:
    """Return the data files in a folder, all of one format.

    Raises:
        UserError: they are of several formats.
    """
    found = entries(folder)
    names = sorted((name for name in found if not found[name] and is_data(name)), key=_natural)
    endings = {split_ending(name)[1:]: name for name in names}
    if len(endings) > 1:
        one, two = list(endings.values())[:2]
        raise UserError(f"data.path: {folder} holds files of several formats ({one} and {two}); name the files.")
    return [joined(folder, name) for name in names]


def _in_folder(folder: str, split: str) -> list[str]:
    """Return the files of a split in a folder, or else in its sub-folder ``data``; an empty list if there are none."""
    for place in (folder, joined(folder, "data")):
        if place != folder and not is_folder(place):
            continue
        found = entries(place)
        for name in SPLIT_NAMES.get(split, (split,)):
            groups = _groups(place, found, name)
            if len(groups) > 1:
                one, two = (group[0] for group in groups[:2])
                raise UserError(f"data.path: split {split!r} is ambiguous: {one} and {two}.")
            if groups:
                return groups[0]
    return []


def _groups(folder: str, found: Mapping[str, bool], name: str) -> list[list[str]]:
    """Return each set of files that may be the split of a name: single files, numbered parts, a sub-folder."""
    groups: list[list[str]] = []
    parts: dict[tuple[str | None, ...], dict[int, str]] = {}
    for entry in sorted(found, key=_natural):
        place = joined(folder, entry)
        if found[entry]:
            if entry.lower() == name:
                whole = is_saved(place) or is_image_folder(place)
                groups.append([place] if whole else _data_files(place))
            continue
        stem, *ending = split_ending(entry)
        if not is_data(entry) or not stem.lower().startswith(name):
            continue
        if stem.lower() == name:
            groups.append([place])
        elif part := PART.fullmatch(stem.lower().removeprefix(name)):
            parts.setdefault((part[2], *ending), {})[int(part[1])] = place
    for (total, *_), numbered in parts.items():
        if total is not None and (missing := _missing_part(numbered, int(total))):
            raise UserError(f"data.path: in {folder} {missing} of {int(total)} parts of {name} is missing.")
        groups.append([numbered[number] for number in sorted(numbered)])
    return [group for group in groups if group]


def _missing_part(numbered: Iterable[int], total: int) -> str:
    """Return the first missing part, or an empty text; parts count from 0 or from 1."""
    present = set(numbered)
    first = 1 if total in present else 0
    return next((f"part {number}" for number in range(first, first + total) if number not in present), "")

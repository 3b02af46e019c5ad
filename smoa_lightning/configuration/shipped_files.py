"""The experiment and study files of the package: found by name where the working directory has no such file."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import smoa_lightning
from smoa_lightning.common.errors import UserError, most_alike, nearest
from smoa_lightning.common.paths import local_path, near_place

logger = logging.getLogger(__name__)
Kind = Literal["experiments", "ablations"]
KINDS: tuple[Kind, ...] = ("experiments", "ablations")
COMMANDS: dict[Kind, str] = {"experiments": "fit", "ablations": "ablate"}


def shipped_root() -> Path:
    """Return the folder of ``experiments`` and ``ablations``: in the package, or next to it in a source tree."""
    package = Path(smoa_lightning.__file__).parent
    inside = package / "configs"  # setup.py copies the files there when it builds a wheel
    return inside if inside.is_dir() else package.parent


def shipped_files(kind: Kind) -> dict[str, Path]:
    """Return all files of a kind: name without suffix, such as ``piqa`` or ``adapters/lora`` -> file."""
    folder = shipped_root() / kind
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.yaml"))}


def shipped_named(name: str, kinds: Sequence[Kind] = KINDS) -> list[Path]:
    """Return the shipped files that a name means.

    Args:
        name: ``experiments/piqa.yaml``, ``piqa.yaml``, ``piqa`` or ``adapters/lora``; also ``lora``, if there is no
            ``lora`` outside of the folders. A name that begins with ``./``, ``../``, ``~`` or ``/`` is a place, and no
            name of a shipped file.
        kinds: Where to look.
    """
    if name.startswith((".", "~", "/")):
        return []
    short = Path(name).as_posix().removesuffix(".yaml")
    exact, inner = [], []
    for kind in kinds:
        for known, file in shipped_files(kind).items():
            if short in (known, f"{kind}/{known}"):
                exact.append(file)
            elif known.endswith(f"/{short}"):
                inner.append(file)
    return exact or inner


def only_shipped(name: str, kinds: Sequence[Kind] = KINDS, where: str = "") -> Path | None:
    """Return the shipped file that a name means; ``None`` if there is none. ``where`` begins the message.

    Raises:
        UserError: Several files have the name.
    """
    found = shipped_named(name, kinds)
    if len(found) > 1:
        raise UserError(f"{where}{name!r} can mean {', '.join(map(full_name, found))}: give the whole name")
    return found[0] if found else None


def config_file(name: str | Path, kind: Kind, named_by: str, folders: Sequence[Path] | None = None) -> Path:
    """Return a configuration file: in the given folders, else in the package.

    Args:
        name: Its path, or the name of a shipped file.
        kind: Which shipped files the name can mean.
        named_by: The flag or key that names the file, for messages.
        folders: If a file names it: folders to which the path may be relative. A leading ``../`` then leads from a copy
            of a shipped file to the package. For a flag: ``None``, which means the working directory. There ``piqa`` is
            the file ``piqa``, else ``piqa.yaml``, else ``experiments/piqa.yaml``.

    Raises:
        UserError: There is no such file, or several shipped files have the name.
    """
    places = [folder / local_path(name) for folder in folders or [Path()]]
    for place in [*places, *(_in_working_directory(str(name), kind) if folders is None else [])]:
        if place.is_file():
            return place
    short = str(name) if folders is None else re.sub(r"^(\.\.?/)+", "", str(name))
    found = only_shipped(short, (kind,), f"{named_by}: ")
    if found is not None:
        if folders is None:
            _say_once(full_name(found))
        return found
    for other, command in COMMANDS.items():
        if other != kind and (others := shipped_named(str(name), (other,))):
            raise UserError(f"{named_by}: {full_name(others[0])} is for {command}: {command} --config {name}")
    raise _no_such_file(str(name), kind, named_by, places)


def _in_working_directory(name: str, kind: Kind) -> list[Path]:
    """Return the own files that a name without suffix or folder may mean, as it does for the shipped files."""
    if name.startswith((".", "~", "/")):
        return []
    own = Path(name if name.endswith(".yaml") else f"{name}.yaml")
    return [own, Path(kind) / own]


def is_config(word: str) -> bool:
    """Return whether a word without suffix names a file of your own or of the package, as ``--config`` finds it."""
    own = [place for kind in KINDS for place in _in_working_directory(word, kind)]
    return any(place.is_file() for place in own) or bool(shipped_named(word))


@functools.cache
def _say_once(name: str) -> None:
    logger.info("using %s of the package", name)


def full_name(file: Path) -> str:
    """Return the name of a shipped file with its kind, such as ``experiments/piqa.yaml``."""
    return file.relative_to(shipped_root()).as_posix()


def description(file: Path) -> str:
    """Return the first sentence of a file's comment."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line[1:].strip() for line in lines if line.startswith("#") and "language-server" not in line)
    return re.split(r"(?<=[.?])\s+(?=[A-Z])|\s+python -m", comment)[0]


def _no_such_file(name: str, kind: Kind, named_by: str, places: Sequence[Path]) -> UserError:
    """Return the error about a missing file, with the nearest names in its folder, else of the package."""
    word = Path(name).name.removesuffix(".yaml")
    is_path = Path(name).suffix or len(Path(name).parts) > 1
    for folder in (place.parent for place in places if is_path and place.parent.is_dir()):
        if there := [file.name for file in sorted(folder.glob("*.yaml"))]:
            near = nearest(f"{word}.yaml", there)
            return UserError(f"{named_by}: the file {name!r} does not exist; {str(folder)!r} holds {near}")
    if is_path and Path(name).parts[0] not in KINDS and (near := near_place(name)):
        return UserError(f"{named_by}: the file {name!r} does not exist{near}")
    known = [known.rpartition("/")[2] for known in shipped_files(kind)]
    own = [file.stem for place in _in_working_directory(name, kind) for file in sorted(place.parent.glob("*.yaml"))]
    best = most_alike(word, {option: (option,) for option in (*known, *own)}, 1)
    if best and best[0] in own:
        return UserError(f"{named_by}: the file {name!r} does not exist; the working directory has {best[0]}")
    close = nearest(word, known, 3) or "none"
    return UserError(f"{named_by}: the file {name!r} does not exist; the package has {close}")

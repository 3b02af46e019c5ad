"""The checkpoints of a run: each is one folder, which is complete or absent.

``checkpoints/step_N`` holds everything that belongs together after N optimizer steps: the resume point ``last.ckpt``,
the best checkpoint ``best.ckpt``, the folders ``adapter/best`` and ``adapter/last``, and the checksums of all files.
``checkpoints/current`` is a symbolic link to the valid folder. The rename of this link commits a checkpoint, so that a
killed process leaves the state before it or after it. A copy of a run without its links gets them back from the newest
folder whose files are all intact, since each folder is a state that the run was in. ``checkpoints/last.ckpt``,
``checkpoints/best.ckpt``, ``adapter/best`` and ``adapter/last`` are links through ``current``. At the end of a run the
two adapters become real folders, which can be copied and uploaded.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from smoa_lightning.common.atomic_files import copy_linked, fsync_folder, fsync_tree, is_leftover, replace_link
from smoa_lightning.common.checksums import sha256
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import RECORD

logger = logging.getLogger(__name__)

LAST, BEST = "last.ckpt", "best.ckpt"
FILES = "files.json"  # the checksums of a checkpoint folder
PLACES = {  # entry of a checkpoint folder -> its public path in the run
    LAST: f"checkpoints/{LAST}",
    BEST: f"checkpoints/{BEST}",
    "adapter/best": "adapter/best",
    "adapter/last": "adapter/last",
}


def current(run: Path) -> Path | None:
    """Return the valid checkpoint folder of a run; ``None`` before the first checkpoint."""
    link = run / "checkpoints" / "current"
    return link.resolve() if (link / FILES).is_file() else None


def run_of(checkpoint: Path) -> Path | None:
    """Return the folder of the run that a checkpoint belongs to; ``None`` for a checkpoint outside of a run."""
    parents = Path(os.path.abspath(checkpoint)).parents  # links are kept: they lie in the run, too
    return next((folder for folder in parents[1:3] if (folder / RECORD).is_file()), None)


def resume_point(run: Path) -> Path | None:
    """Return the file from which a run resumes; ``None`` without one."""
    folder = current(run)
    file = run / PLACES[LAST] if folder is None else folder / LAST  # earlier versions wrote a plain file
    return file if file.is_file() else None


@contextlib.contextmanager
def committing(run: Path, step: int, writes: bool = True) -> Iterator[Path]:
    """Yield a new folder for the files of a checkpoint; commit it when the block ends without an error.

    Entries that the block does not write are those of the checkpoint before. They are on disk twice: each of the two
    checkpoints that are kept has files of its own, so that damage to one leaves the other.

    Args:
        run: The folder of the run.
        step: The number of optimizer steps that the run has done.
        writes: Whether this process writes; the other processes of a distributed run only need the path.
    """
    root = run / "checkpoints"
    fresh = root / f".step_{step}.tmp"
    if not writes:
        yield fresh
        return
    previous = current(run)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        _complete(fresh, run, previous)
        final = _unused(root, step)
        fresh.rename(final)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    fsync_folder(root)
    replace_link(root / "current", final.name)
    _point(run, final)
    _remove_checkpoints(root, keep={final, previous})


def _complete(fresh: Path, run: Path, previous: Path | None) -> None:
    """Add the entries that did not change, then write the checksums of all files and flush everything to disk."""
    known = {} if previous is None else checksums(previous)
    sums: dict[str, str] = {}
    for entry, place in PLACES.items():
        old = run / place if previous is None else previous / entry
        if not (fresh / entry).exists() and old.exists():
            spare = None if previous is None else _spare(previous, entry)
            copy_linked(spare or old, fresh / entry, link=previous is None or spare is not None)
            sums |= _sums_of(known, entry)
    for file in sorted(path for path in fresh.rglob("*") if path.is_file()):
        name = file.relative_to(fresh).as_posix()
        sums[name] = sums.get(name) or sha256(file)
    (fresh / FILES).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
    fsync_tree(fresh)


def _sums_of(sums: dict[str, str], entry: str) -> dict[str, str]:
    """Return the checksums of the files of an entry."""
    return {name: value for name, value in sums.items() if name == entry or name.startswith(f"{entry}/")}


def _spare(previous: Path, entry: str) -> Path | None:
    """Return the same entry with files of its own in a checkpoint that will be removed; ``None`` without one."""
    expected = _sums_of(checksums(previous), entry)
    for folder in _folders(previous.parent) if expected else []:
        if folder == previous or _sums_of(checksums(folder), entry) != expected:
            continue
        if all((folder / name).is_file() and not (folder / name).samefile(previous / name) for name in expected):
            return folder / entry
    return None


def checksums(folder: Path) -> dict[str, str]:
    """Return file name -> SHA-256 of a checkpoint folder; empty if the list itself is damaged."""
    try:
        sums = json.loads((folder / FILES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return sums if isinstance(sums, dict) else {}


def damaged(folder: Path) -> list[str]:
    """Return the files of a checkpoint folder that are missing or changed; the list of checksums if it is damaged."""
    sums = checksums(folder)
    return [n for n in sums if not (folder / n).is_file() or sums[n] != sha256(folder / n)] if sums else [FILES]


def _order(folder: Path) -> tuple[int, int]:
    """Return the step of a checkpoint folder, and its number among the checkpoints of this step."""
    found = re.fullmatch(r"step_(\d+)(?:\.(\d+))?", folder.name)
    return (int(found[1]), int(found[2] or 0)) if found else (-1, 0)


def _folders(root: Path) -> list[Path]:
    """Return all checkpoint folders, the newest first. Copies have other times than the files that they copy."""
    return sorted(root.glob("step_*"), key=_order, reverse=True)


def _unused(root: Path, step: int) -> Path:
    """Return the next name of a step: validation can follow directly after a step that was saved."""
    numbers = [number for other, number in map(_order, _folders(root)) if other == step]
    return root / (f"step_{step}.{max(numbers) + 1}" if numbers else f"step_{step}")


def _point(run: Path, folder: Path) -> None:
    """Let the public paths lead through ``current``."""
    for entry, place in PLACES.items():
        public = run / place
        if (folder / entry).exists():
            public.parent.mkdir(exist_ok=True)
            replace_link(public, os.path.relpath(run / "checkpoints" / "current" / entry, public.parent))
        elif public.is_symlink():
            public.unlink()


def _remove_checkpoints(root: Path, keep: set[Path | None]) -> None:
    for folder in _folders(root):
        if folder not in keep and folder.resolve() not in keep:
            shutil.rmtree(folder, ignore_errors=True)


def recover(run: Path) -> None:
    """Remove what a killed process left unfinished; bring a run of an earlier version into this layout.

    Raises:
        UserError: The valid checkpoint folder is damaged, or no folder of a run without links is intact; nothing in
            them is removed.
    """
    for folder in (run, run / "checkpoints", run / "adapter"):
        for entry in folder.glob(".*"):
            if is_leftover(entry):
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    folder_now = current(run)
    if folder_now is not None:
        _point(run, folder_now)
        return
    link = run / "checkpoints" / "current"
    if link.is_symlink():
        raise UserError(
            f"the checkpoint {str(link.resolve())!r} is damaged: it has no {FILES}; restore the file, or let the link "
            f"{str(link)!r} lead to a complete checkpoint folder"
        )
    if _adopt(run):
        return
    if (run / PLACES[LAST]).is_file():
        with committing(run, 0):
            pass


def _adopt(run: Path) -> bool:
    """Make the newest intact checkpoint folder of a run without a valid one the valid one; return whether it has one.

    The link is missing if the process was killed before the first link, or if the run was copied without links.
    """
    root = run / "checkpoints"
    complete = [folder for folder in _folders(root) if (folder / FILES).is_file()]
    intact = next((folder for folder in complete if not damaged(folder)), None)
    if intact is None:
        if complete:
            newest = complete[0] / damaged(complete[0])[0]
            raise UserError(
                f"the run has no intact checkpoint: the file {str(newest)!r} is missing or damaged; restore it, or "
                f"remove {str(root)!r} to start again"
            )
        _remove_checkpoints(root, keep=set())  # without checksums: a process was killed while it removed them
        return False
    logger.info("the link %s was missing: the run continues from %s", root / "current", intact.name)
    replace_link(root / "current", intact.name)
    _point(run, intact)
    return True


def publish(run: Path) -> None:
    """At the end of a run: make its adapters real folders and keep one checkpoint."""
    folder = current(run)
    if folder is None:
        return
    for name in ("best", "last"):
        public = run / "adapter" / name
        if public.is_symlink():
            real = public.with_name(f".{name}.tmp")
            copy_linked(folder / "adapter" / name, real)
            fsync_tree(real)
            public.unlink()
            real.rename(public)
    _remove_checkpoints(run / "checkpoints", keep={folder})


def previous_checkpoint(file: Path) -> Path | None:
    """Return the same file in another checkpoint folder of the run whose checksum is right; ``None`` without one."""
    folder = next((parent for parent in file.resolve().parents if _order(parent)[0] >= 0), file.resolve().parent)
    name = file.resolve().relative_to(folder).as_posix()
    for other in _folders(folder.parent):
        candidate = other / name
        if other != folder and candidate.is_file() and checksums(other).get(name) == sha256(candidate):
            return candidate
    return None

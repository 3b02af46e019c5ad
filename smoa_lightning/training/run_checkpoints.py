"""The checkpoints of a run: each is one folder, which is complete or absent.

``checkpoints/step_N`` holds everything that belongs together after N optimizer steps: the resume point ``last.ckpt``,
the best checkpoint ``best.ckpt``, the folders ``adapter/best`` and ``adapter/last``, and the checksums of all files.
``checkpoints/current`` is a symbolic link to the valid folder. The rename of this link commits a checkpoint, so that a
killed process leaves the state before it or after it. ``checkpoints/last.ckpt``, ``checkpoints/best.ckpt``,
``adapter/best`` and ``adapter/last`` are links through ``current``. At the end of a run the two adapters become real
folders, which can be copied and uploaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from smoa_lightning.common.atomic_files import copy_linked, fsync_folder, fsync_tree, is_leftover, replace_link
from smoa_lightning.common.checksums import sha256
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import RECORD

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

    Entries that the block does not write are those of the checkpoint before, as hard links.

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
    """Link the entries that did not change, then write the checksums of all files and flush everything to disk."""
    known = {} if previous is None else checksums(previous)
    sums: dict[str, str] = {}
    for entry, place in PLACES.items():
        old = run / place if previous is None else previous / entry
        if not (fresh / entry).exists() and old.exists():
            copy_linked(old, fresh / entry)
            sums |= {name: value for name, value in known.items() if name == entry or name.startswith(f"{entry}/")}
    for file in sorted(path for path in fresh.rglob("*") if path.is_file()):
        name = file.relative_to(fresh).as_posix()
        sums[name] = sums.get(name) or sha256(file)
    (fresh / FILES).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
    fsync_tree(fresh)


def checksums(folder: Path) -> dict[str, str]:
    """Return file name -> SHA-256 of a checkpoint folder; empty if the list itself is damaged."""
    try:
        sums = json.loads((folder / FILES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return sums if isinstance(sums, dict) else {}


def _unused(root: Path, step: int) -> Path:
    """Return a name that no checkpoint has: validation can follow directly after a step that was saved."""
    path, number = root / f"step_{step}", 1
    while path.exists():
        path, number = root / f"step_{step}.{number}", number + 1
    return path


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
    for folder in root.glob("step_*"):
        if folder not in keep and folder.resolve() not in keep:
            shutil.rmtree(folder, ignore_errors=True)


def recover(run: Path) -> None:
    """Remove what a killed process left unfinished; bring a run of an earlier version into this layout.

    Raises:
        UserError: The valid checkpoint folder is damaged; nothing in it is removed.
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
    _remove_checkpoints(run / "checkpoints", keep=set())  # renamed, but not committed
    if (run / PLACES[LAST]).is_file():
        with committing(run, 0):
            pass


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
    folder = file.resolve().parent
    for other in sorted(folder.parent.glob("step_*"), key=lambda path: path.stat().st_mtime, reverse=True):
        candidate = other / file.name
        if other != folder and candidate.is_file() and checksums(other).get(file.name) == sha256(candidate):
            return candidate
    return None

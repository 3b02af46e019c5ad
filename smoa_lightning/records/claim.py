"""The claim of a run's folder: two runs that start at the same time never get the same folder."""

from __future__ import annotations

import contextlib
from pathlib import Path

from smoa_lightning.common.file_lock import FileLock, folder_lock
from smoa_lightning.records.record import LOCK, RECORD, RunFolder, RunInProgress, run_folder

AT_START = (RECORD, "config.yaml")  # files of a run that has neither scored nor trained
EVENTS = "events.out.tfevents."


class Claim:
    """A run folder that this process has locked. ``release`` ends the claim.

    Args:
        target: The folder.
        lock: The lock of the folder.
        new_folders: The folders that the claim has created, the innermost first.
    """

    def __init__(self, target: RunFolder, lock: FileLock, new_folders: list[Path]) -> None:
        self.target, self._lock, self._new_folders = target, lock, new_folders

    def forget(self) -> None:
        """Remove what a run writes before it scores anything, if this claim has created the folder and nothing else."""
        files = list(self.target.path.iterdir()) if self._new_folders else []
        if all(file.name in (LOCK, *AT_START) or file.name.startswith(EVENTS) for file in files):
            for file in files:
                if file.name != LOCK:
                    file.unlink()

    def release(self) -> None:
        """Unlock the folder. A folder without a record is removed, if this claim has created it and it is empty."""
        if self._new_folders and not (self.target.path / RECORD).exists():
            with contextlib.suppress(OSError):
                if [entry.name for entry in self.target.path.iterdir()] == [LOCK]:
                    (self.target.path / LOCK).unlink()
                for folder in self._new_folders:
                    folder.rmdir()
        self._lock.release()


def claim(base: Path, run_signature: str, exact: bool, older: str = "") -> Claim:
    """Choose the folder of a run as :func:`run_folder` does, create it and lock it, in one step for all processes.

    Args:
        base: The folder of all versions, or with ``exact`` the folder itself.
        run_signature: The signature of the run.
        exact: Whether ``base`` is the folder of the run.
        older: The signature that an earlier version gave the same run.

    Raises:
        RunInProgress: Another process does the same run.
        UserError: As :func:`run_folder`.
    """
    while True:
        parent = base.parent if exact else base
        new_folders = _create(parent)
        try:
            with folder_lock(parent):
                target = run_folder(base, run_signature, exact, older)
                new_folders = _create(target.path) + new_folders
                lock = run_lock(target.path, run_signature)
                if run_folder(base, run_signature, exact, older) == target:
                    return Claim(target, lock, new_folders)
                lock.release()  # the run that was in progress there has finished
        except FileNotFoundError:
            pass  # a start that failed has just removed the empty folder
        except BaseException:
            for folder in new_folders:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise


def _create(folder: Path) -> list[Path]:
    """Create a folder and its parents; return those that did not exist, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def run_lock(folder: Path, run_signature: str = "") -> FileLock:
    """Lock a run folder, so that no second process writes to it. Even a killed process releases the lock.

    Raises:
        RunInProgress: Another process holds the lock.
    """
    try:
        lock = FileLock(folder / LOCK)
    except BlockingIOError:
        raise RunInProgress(f"another process is running in {folder}: wait for it or stop it") from None
    lock.write(run_signature)
    return lock

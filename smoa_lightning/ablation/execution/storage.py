"""Where the state of a study is kept: an Optuna journal file in its folder, or any storage that Optuna opens by URL."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path
from typing import IO

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock  # public classes take it, but it is not exported

from smoa_lightning.common.errors import UserError

JOURNAL = "storage.log"


class JournalLock(BaseJournalFileLock):
    """An exclusive lock on a file beside the journal that ends with its process, however that ends.

    Optuna's own locks are files that stay when their process is killed, and are broken by force after half a minute. A
    process that was killed within a write may also leave the beginning of a line, after which nobody could read the
    journal any more: whoever holds the lock removes it, since nobody else can be writing.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self._held: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Wait for the lock, then remove the beginning of a line that was never ended."""
        self._held = self.journal.with_name(f"{self.journal.name}.lock").open("wb")
        fcntl.flock(self._held, fcntl.LOCK_EX)
        drop_unfinished_line(self.journal)
        return True

    def release(self) -> None:
        """Let others write."""
        if self._held is not None:
            fcntl.flock(self._held, fcntl.LOCK_UN)  # closing is not enough where a fork has the file too
            self._held.close()
            self._held = None


def drop_unfinished_line(file: Path) -> None:
    """Cut a file behind its last line break; one that ends with a line break stays as it is."""
    with file.open("rb+") as stream:
        end = stream.seek(0, 2)
        position = end
        while position:
            start = max(0, position - 4096)
            stream.seek(start)
            found = stream.read(position - start).rfind(b"\n")
            if found >= 0:
                position = start + found + 1
                break
            position = start
        if position != end:
            stream.truncate(position)


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """Open the storage of a study.

    Args:
        url: As Optuna takes it, such as ``postgresql://user@host/name``; ``None`` for the journal of the folder.
        folder: The study folder.

    Raises:
        UserError: The server can not be reached, its driver is not installed, or this is no URL.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        folder.mkdir(parents=True, exist_ok=True)
        journal = folder / JOURNAL
        try:
            return JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalLock(journal)))
        except (ValueError, OSError) as error:
            raise UserError(f"--storage: the journal {journal} can not be read: {_sentence(error)}") from error
    shown = re.sub(r"://([^:@/]+):[^@/]*@", r"://\1:***@", url)  # passwords do not belong into messages
    try:
        return optuna.storages.get_storage(url)
    except ImportError as error:
        raise UserError(f"--storage {shown} needs a driver that is not installed: {_sentence(error)}") from error
    except Exception as error:  # SQLAlchemy's and the drivers' own errors have no common class
        raise UserError(f"--storage {shown} can not be reached: {_sentence(error)}") from error


def close_storage(storage: BaseStorage) -> None:
    """Close the connections to a server; a journal has none."""
    storage.remove_session()
    backend = getattr(storage, "_backend", storage)  # behind Optuna's cache
    if isinstance(backend, RDBStorage):
        backend.engine.dispose()


def _sentence(error: BaseException) -> str:
    """The first sentence of an error, or of the driver's error within it."""
    inner = getattr(error, "orig", None) or error.__cause__ or error
    text = " ".join(str(inner or error).split())
    text = re.sub(r"://([^:@/]+):[^@/]*@", r"://\1:***@", text)
    return text[:300] or type(error).__name__

"""The storage of a study's state: an Optuna journal file in its folder, or an Optuna storage with a URL."""

from __future__ import annotations

import fcntl
import logging
import re
from pathlib import Path
from typing import IO

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal._file import BaseJournalFileLock  # part of a public interface, but not exported

from smoa_lightning.ablation.execution.journal import CheckedJournal, check_journal
from smoa_lightning.common.disk_errors import disk_sentence
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.common.file_lock import lock_file
from smoa_lightning.records.record import STUDY

logger = logging.getLogger(__name__)
JOURNAL = "storage.log"


class JournalLock(BaseJournalFileLock):
    """An exclusive lock on a file next to the journal; the lock always ends with its process.

    Optuna's own locks are files. They stay if their process is killed, and other processes wait half a minute before
    they remove them. A process that is killed while it writes may also leave an unfinished line, which makes the
    journal unreadable. The owner of the lock removes such a line, since no other process can be writing.

    Args:
        journal: Path of the journal.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self._lock_file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Wait for the lock, then remove an unfinished line.

        Raises:
            UserError: The file system has no locks.
        """
        file = self.journal.with_name(f"{self.journal.name}.lock")
        stream = file.open("wb")
        try:
            lock_file(stream.fileno(), file, wait=True)
        except BaseException:
            stream.close()
            raise
        self._lock_file = stream
        drop_unfinished_line(self.journal)
        return True

    def release(self) -> None:
        """Release the lock."""
        if self._lock_file is not None:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)  # closing is not enough if a forked process has the file too
            self._lock_file.close()
            self._lock_file = None


def drop_unfinished_line(file: Path) -> None:
    """Remove everything after the last line break of a file."""
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
        url: URL for Optuna, such as ``postgresql://user@host/name``; ``None`` for the journal in the folder.
        folder: The study folder.

    Raises:
        UserError: The server cannot be reached, its driver is not installed, the URL is wrong, or a line of the journal
            is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        folder.mkdir(parents=True, exist_ok=True)
        journal = folder / JOURNAL
        try:
            if journal.is_file() and journal.stat().st_size:
                check_journal(journal)
            elif (folder / STUDY).is_file():
                logger.warning("the journal %s is missing or empty: finished runs are found again in their folders, "
                               "failed attempts are forgotten", journal)  # fmt: skip
            return JournalStorage(CheckedJournal(str(journal), lock_obj=JournalLock(journal)))
        except OSError as error:
            if disk_sentence(error) is not None:
                raise  # a full or read-only disk, missing rights: main() says so, with its own exit status
            raise UserError(f"--storage: the journal {journal} cannot be read: {_sentence(error)}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"--storage: the journal {journal} cannot be read: {_sentence(error)}") from error
    shown = without_passwords(url)
    try:
        return optuna.storages.get_storage(url)
    except ImportError as error:
        raise UserError(f"--storage {shown} needs a driver that is not installed: {_sentence(error)}") from error
    except Exception as error:  # errors of SQLAlchemy and of the drivers have no common class
        raise UserError(f"--storage {shown} cannot be reached: {_sentence(error)}") from error


def close_storage(storage: BaseStorage) -> None:
    """Close the connections to a server; a journal has none."""
    storage.remove_session()
    backend = getattr(storage, "_backend", storage)  # behind Optuna's cache
    if isinstance(backend, RDBStorage):
        backend.engine.dispose()


def _sentence(error: BaseException) -> str:
    """Return the text of an error, or of the driver's error in it, without passwords."""
    inner = getattr(error, "orig", None) or error.__cause__ or error
    return without_passwords(one_line(inner))[:300]


def without_passwords(text: str) -> str:
    """Return a text with *** for each password of a URL or of a driver's settings in it.

    >>> without_passwords("postgresql://me:a/b@host/name?sslpassword=c&port=1")
    'postgresql://me:***@host/name?sslpassword=***&port=1'
    """
    text = re.sub(r"://([^:@/\s]*):[^\s]*@", r"://\1:***@", text)
    return re.sub(r"(\w*(?:passw(?:or)?d|passwd|pwd|secret|token)\w*\s*=\s*)[^\s&;,'\"]+", r"\1***", text, flags=re.I)

"""Locks of files and folders that end with their process, even if it is killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from smoa_lightning.common.errors import UserError

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}  # some mounts of Lustre and NFS


def lock_file(handle: int, file: Path, wait: bool) -> None:
    """Lock an open file.

    Raises:
        BlockingIOError: Another process holds the lock, and this one does not ``wait``.
        UserError: The file system has no locks. Without them, two processes could write the same run.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        with contextlib.suppress(OSError):
            if not os.fstat(handle).st_size:
                file.unlink()  # leave nothing behind
        reason = os.strerror(error.errno)
        raise UserError(
            f"the file system of {str(file.parent)!r} has no file locks ({reason}): choose a folder on another file "
            "system with --run.root, for a study with --root, for replies with --output"
        ) from error


class FileLock:
    """An exclusive lock (``flock``) of a file. The system releases it when the process dies.

    A forked process, such as a worker of a data loader, closes its copy of the file. Else it would hold the lock of a
    killed process until it notices that its parent is gone.

    Args:
        file: The file to lock; it is created if it does not exist.

    Raises:
        BlockingIOError: Another process holds the lock.
        FileNotFoundError: The folder of the file was removed.
        UserError: The file system has no locks.
    """

    held: set[FileLock] = set()  # noqa: RUF012  locks of this process

    def __init__(self, file: Path) -> None:
        self.file = file
        while True:
            self._handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                lock_file(self._handle, file, wait=False)
                same = _is_open(self._handle, file)
            except BaseException:
                os.close(self._handle)
                raise
            if same:
                break
            os.close(self._handle)  # the holder before has removed the file
        FileLock.held.add(self)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def write(self, text: str) -> None:
        """Replace the content of the file."""
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, text.encode(), 0)

    def release(self) -> None:
        """Release the lock, if it is held; the file remains."""
        if self in FileLock.held:
            FileLock.held.remove(self)
            fcntl.flock(self._handle, fcntl.LOCK_UN)  # a process that is being forked may still have the file open
            os.close(self._handle)


def _is_open(handle: int, file: Path) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def _close_in_forked_process() -> None:
    for lock in FileLock.held:
        with contextlib.suppress(OSError):
            os.close(lock._handle)
    FileLock.held.clear()


os.register_at_fork(after_in_child=_close_in_forked_process)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Wait for the lock of a folder and hold it. It leaves no file; without support of the file system it does nothing.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # network file systems lock no folders
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

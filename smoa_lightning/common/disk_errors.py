"""Errors of disks and folders as one sentence: a full disk, missing rights, a folder that has disappeared."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import threading
from collections.abc import Iterator

logger = logging.getLogger(__name__)
STATUS = 74  # exit status after an error of the disk; EX_IOERR of sysexits.h
FULL_STATUS = 75  # exit status after a full disk; EX_TEMPFAIL: the same command can succeed later

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this disk or a limit allows",
}
OTHER = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this user has no permission",
    errno.EPERM: "this user has no permission",
    errno.ENOENT: "the file or folder does not exist, or has disappeared",
    errno.ESTALE: "the folder has disappeared from the network file system",
    errno.ENOTDIR: "a part of the path is a file and not a folder",
    errno.EISDIR: "it is a folder and not a file",
    errno.EEXIST: "there is a file of this name already",
    errno.ENOTEMPTY: "another process has written to the folder",
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.EIO: "the disk does not answer",
    errno.EMFILE: "this process has too many open files (see ulimit -n)",
    errno.ENFILE: "this machine has too many open files",
    errno.EXDEV: "the folder spans two file systems",
}
REASONS = FULL | OTHER
REMEDIES = dict.fromkeys(FULL, "free some space") | {
    **dict.fromkeys(OTHER, "fix this"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "choose another folder or change its rights"),
    **dict.fromkeys((errno.ENOENT, errno.ESTALE), "bring it back or choose another folder"),
}
# What libraries in other languages write instead of raising an OSError with its number.
TEXTS = {
    errno.ENOSPC: r"no space left|disk (?:is )?full|code: 28\b|PytorchStreamWriter failed|inline_container.*pos",
    errno.EDQUOT: r"quota exceeded|code: 122\b",
    errno.EFBIG: r"file too large|code: 27\b",
    errno.EROFS: r"read-?only file ?system|readonly database|code: 30\b",
    errno.EACCES: r"permission denied|code: 13\b",
}


def _number(error: BaseException) -> int | None:
    """Return the number of an error of the disk; ``None`` for other errors."""
    if isinstance(error, OSError) and error.errno in REASONS:
        return error.errno
    if isinstance(error, OSError | RuntimeError) or type(error).__name__ in ("SafetensorError", "OperationalError"):
        text = str(error)
        return next((number for number, words in TEXTS.items() if re.search(words, text, re.I | re.S)), None)
    return None


def _found(error: BaseException | None) -> tuple[int, BaseException] | None:
    """Return the first error of the disk among an error and the errors that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if (number := _number(error)) is not None:
            return number, error
        error = error.__cause__ or error.__context__
    return None


def disk_is_full(error: BaseException) -> bool:
    """Return whether an error comes from a full disk."""
    found = _found(error)
    return found is not None and found[0] in FULL


def again(continues: bool) -> str:
    """Return the advice to run a command again.

    Args:
        continues: Whether the command goes on from what it has written.
    """
    return "run the same command again" + (" to continue" if continues else "")


def disk_sentence(error: BaseException, continues: bool = True) -> str | None:
    """Return one sentence about an error of the disk: the file, the reason, the remedy; ``None`` for other errors.

    Args:
        error: The error.
        continues: Whether the command goes on from what it has written.

    >>> disk_sentence(OSError(errno.ENOSPC, "No space left on device", "runs/a/record.json"))
    "cannot use 'runs/a/record.json': the disk is full; free some space, then run the same command again to continue"
    """
    found = _found(error)
    if found is None:
        return None
    number, cause = found
    names = [name for name in (getattr(cause, "filename2", None), getattr(cause, "filename", None)) if name is not None]
    what = repr(os.fsdecode(names[0])) if names and isinstance(names[0], str | bytes) else "a file"
    return f"cannot use {what}: {REASONS[number]}; {REMEDIES[number]}, then {again(continues)}"


@contextlib.contextmanager
def threads_without_traceback() -> Iterator[None]:
    """Print no traceback for an error of the disk in a thread: TensorBoard raises it again in the main thread."""
    previous = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None and disk_sentence(arguments.exc_value) is not None:
            logger.debug("an error in a thread: %s", arguments.exc_value)
        else:
            previous(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = previous

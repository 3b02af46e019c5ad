"""The flag that allows a backbone whose weights or settings differ from those in training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

FLAG = "allow_other_backbone"
HELP = "use a backbone whose weights or settings differ from those that the checkpoint or the adapter was trained on"

_allowed = False


def other_backbone_is_allowed() -> bool:
    """Whether the flag was given."""
    return _allowed


@contextlib.contextmanager
def allowing_other_backbone(allowed: bool) -> Iterator[None]:
    """Allow a different backbone until the end of the block, if ``allowed`` is true."""
    global _allowed
    before, _allowed = _allowed, allowed
    try:
        yield
    finally:
        _allowed = before


def split_flag(args: Sequence[str]) -> tuple[bool, list[str]]:
    """Return whether the flag is given, and the arguments without it. It is not a setting, so no file can contain it.

    >>> split_flag(["--allow_other_backbone", "--ckpt_path", "a.ckpt"])
    (True, ['--ckpt_path', 'a.ckpt'])
    """
    rest = [word for word in args if word != f"--{FLAG}"]
    return len(rest) < len(args), rest

"""Things that are expensive to make and the same for many runs of one process, kept in memory while that is asked for.

Outside of :func:`keeping` nothing is kept: a command that makes one run pays nothing for it.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import TypeVar

T = TypeVar("T")
_kept: OrderedDict[tuple[str, Hashable], object] | None = None
MOST = 16  # of each kind; the one that was not asked for longest goes first


@contextlib.contextmanager
def keeping() -> Iterator[None]:
    """Keep what is made inside, until the end."""
    global _kept
    before, _kept = _kept, OrderedDict()
    try:
        yield
    finally:
        _kept = before


def kept(kind: str, key: Hashable, make: Callable[[], T], most: int = MOST) -> T:
    """Return what was made for a key, or make it.

    Whoever gets it must not change it: the next one gets the same object.

    Args:
        kind: What it is.
        key: Everything that decides it.
        make: Makes it.
        most: How many of this kind are kept.
    """
    if _kept is None:
        return make()
    place = kind, key
    if place not in _kept:
        _kept[place] = make()
        for old in [other for other in _kept if other[0] == kind][:-most]:
            del _kept[old]
    _kept.move_to_end(place)
    return _kept[place]  # type: ignore[return-value]


def is_keeping() -> bool:
    """Whether anything is kept."""
    return _kept is not None

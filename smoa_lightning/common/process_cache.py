"""A cache in memory for what is expensive to make and the same in many runs of one process.

It is active only inside :func:`process_cache`: a command that makes one run keeps nothing.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import TypeVar

T = TypeVar("T")
_cache: OrderedDict[tuple[str, Hashable], object] | None = None
MOST = 16  # entries of each kind; the one that was not asked for longest is dropped first


@contextlib.contextmanager
def process_cache() -> Iterator[None]:
    """Keep what :func:`cached` makes until the end of the block."""
    global _cache
    before, _cache = _cache, OrderedDict()
    try:
        yield
    finally:
        _cache = before


def cached(kind: str, key: Hashable, make: Callable[[], T], most: int = MOST) -> T:
    """Return what was made for a key, or make it.

    The caller must not change the result: the next caller gets the same object.

    Args:
        kind: What it is.
        key: Everything that decides it.
        make: Makes it.
        most: How many of this kind are kept.
    """
    if _cache is None:
        return make()
    place = kind, key
    if place not in _cache:
        _cache[place] = make()
        for old in [other for other in _cache if other[0] == kind][:-most]:
            del _cache[old]
    _cache.move_to_end(place)
    return _cache[place]  # type: ignore[return-value]


def is_active() -> bool:
    """Whether anything is cached."""
    return _cache is not None

"""A memory cache for expensive objects that many runs of one process share.

It is active only inside :func:`process_cache`. A command with a single run caches nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")
_cache: OrderedDict[tuple[str, Hashable], object] | None = None
MOST = 16  # entries of each kind; the least recently used entry is dropped first


@contextlib.contextmanager
def process_cache() -> Iterator[None]:
    """Cache the results of :func:`cached` until the end of the block."""
    global _cache
    before, _cache = _cache, OrderedDict()
    try:
        yield
    finally:
        _cache = before


def cached(kind: str, key: Hashable, make: Callable[[], T], most: int = MOST) -> T:
    """Return the cached result for a key, or make it.

    The caller must not change the result: the next caller gets the same object.

    Args:
        kind: Kind of result, such as ``tokenizer``.
        key: Everything that the result depends on.
        make: Makes the result.
        most: Largest number of cached results of this kind.
    """
    if _cache is None:
        return make()
    entry = kind, key
    if entry in _cache:
        logger.debug("%s: cached by an earlier run of this process", kind)
    else:
        _cache[entry] = make()
        for old in [known for known in _cache if known[0] == kind][:-most]:
            del _cache[old]
    _cache.move_to_end(entry)
    return _cache[entry]  # type: ignore[return-value]


def is_active() -> bool:
    """Whether the cache is active."""
    return _cache is not None

"""Work that is shared among the cores of a machine, without starting anything anew."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_inherited: tuple[Callable[[Any], Any], Sequence[Any]] | None = None


def in_processes(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return what a function makes of each item, in their order, from as many forked processes as there are cores.

    A forked process has all that this one has, so only results are pickled. Where there is no fork, or one core, the
    items are taken one after the other.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1  # Linux, where forking is safe
    processes = min(cores, len(items))
    if processes < 2:
        return [function(item) for item in items]
    context = multiprocessing.get_context("fork")
    with context.Pool(processes, initializer=_inherit, initargs=(function, items)) as pool:
        return pool.map(_call, range(len(items)), chunksize=max(1, len(items) // (8 * processes)))


def _inherit(function: Callable[[Any], Any], items: Sequence[Any]) -> None:
    global _inherited
    _inherited = function, items


def _call(number: int) -> Any:
    assert _inherited is not None
    function, items = _inherited
    return function(items[number])

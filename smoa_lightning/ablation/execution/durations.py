"""The remaining time of a study, and the text of a time."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def remaining_seconds(durations: Mapping[str, Sequence[float]], left: Mapping[str, int], workers: int) -> float | None:
    """Return the seconds until all runs are done; ``None`` if no run is done yet.

    A remaining run is expected to take the median of its cell; if the cell has no finished run, the median of all runs.

    Args:
        durations: Cell -> seconds of each of its finished runs.
        left: Cell -> number of remaining runs.
        workers: Number of workers.

    >>> remaining_seconds({"a": [10.0, 30.0], "b": []}, {"a": 1, "b": 2}, workers=2)
    30.0
    """
    known = [seconds for each in durations.values() for seconds in each]
    if not any(left.values()):
        return 0.0
    if not known:
        return None
    overall = statistics.median(known)
    own = {cell: statistics.median(each) for cell, each in durations.items() if each}
    return sum(own.get(cell, overall) * runs for cell, runs in left.items()) / max(1, workers)


def clock(seconds: float) -> str:
    """Return hours, minutes and seconds.

    >>> clock(3725), clock(61)
    ('1:02:05', '1:01')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"

"""Common code of the speed scripts: ratios of series that were measured alternately, and arguments of the backbone.

It imports only the standard library, so that the interpreter of a different program can run it too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile; for one value, this value three times.

    The inclusive method interpolates inside the sample, so quartiles of few rounds are not outside of the measurements.
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def spread(own: Sequence[float], peer: Sequence[float]) -> str:
    """Return median and quartiles of the ratios own / peer of two series, round by round."""
    low, middle, high = quartiles([a / b for a, b in zip(own, peer, strict=True)])
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def rounds(number: int, seconds: float | None = None) -> Iterator[int]:
    """Yield the numbers of rounds, at least one; stop before a round that would probably end after ``seconds``."""
    began, longest = time.monotonic(), 0.0
    for this in range(number):
        start = time.monotonic()
        if this and seconds is not None and start - began + longest > seconds:
            return
        yield this
        longest = max(longest, time.monotonic() - start)


def add_backbone_arguments(
    parser: argparse.ArgumentParser, dtype: str = "float32", required: bool = True, attention: bool = True
) -> None:
    """Add the arguments for the measured backbone: its folder, dtype, device and attention."""
    parser.add_argument("--backbone", required=required, help="folder of a Hugging Face causal language model")
    parser.add_argument("--dtype", default=dtype)
    parser.add_argument("--device", default="cpu")
    if attention:
        parser.add_argument("--attention", default="eager")

"""Common code of the speed scripts: ratios of series that were measured alternately, and arguments of the backbone.

It imports only the standard library, so that the interpreter of a different program can run it too.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence


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


def add_backbone_arguments(
    parser: argparse.ArgumentParser, dtype: str = "float32", required: bool = True, attention: bool = True
) -> None:
    """Add the arguments for the measured backbone: its folder, dtype, device and attention."""
    parser.add_argument("--backbone", required=required, help="folder of a Hugging Face causal language model")
    parser.add_argument("--dtype", default=dtype)
    parser.add_argument("--device", default="cpu")
    if attention:
        parser.add_argument("--attention", default="eager")

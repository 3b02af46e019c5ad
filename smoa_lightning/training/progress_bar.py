"""Lightning's progress bar: none without a terminal, and short names of metrics, since a terminal has 80 columns."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from smoa_lightning.common.console import is_quiet, is_terminal

PARTS = ("train/", "selection/", "report/", "base/")


def fit_terminal(bar: Any) -> None:
    """Switch a progress bar off if the output is no terminal or the command is quiet; else shorten its metrics.

    Args:
        bar: A progress bar of Lightning, or ``None``.
    """
    if bar is None:
        return
    if is_quiet() or not is_terminal(sys.stdout):
        with contextlib.suppress(NotImplementedError):  # the base class of bars shows nothing
            bar.disable()
        return
    all_metrics = bar.get_metrics

    def get_metrics(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return {short_name(name): value for name, value in all_metrics(*args, **kwargs).items()}

    bar.get_metrics = get_metrics


def short_name(metric: str) -> str:
    """Return the name of a metric without the part of the run that it belongs to.

    >>> short_name("selection/perplexity"), short_name("selection/piqa/acc"), short_name("v_num")
    ('perplexity', 'piqa/acc', 'v_num')
    """
    part = next((part for part in PARTS if metric.startswith(part)), "")
    return metric.removeprefix(part)

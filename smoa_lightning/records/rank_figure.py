"""The figures of the command ``rank``: singular values of updates, and scores of updates that are cut to a rank."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoa_lightning.common.atomic_files import replacing

STYLES = ("-", "--", "-.", ":")


@dataclass
class Panel:
    """The curves of one kind of layer, or of one metric.

    Attributes:
        title: Name of the layers and their shape, or of the metric.
        curves: Label of a run -> its singular values divided by the largest, descending, or its scores.
        lora_rank: Rank of a LoRA with the same number of parameters; None draws no line.
        ranks: Label of a run -> the places of the values on the first axis, if they are not 1, 2, 3, ...
        levels: Label of a run -> a level without an update, drawn as a thin line.
        xlabel: Name of the first axis, which is logarithmic.
        ylabel: Name of the second axis.
        yscale: Scale of the second axis.
    """

    title: str
    curves: dict[str, list[float]] = field(default_factory=dict)
    lora_rank: float | None = None
    ranks: dict[str, list[int]] = field(default_factory=dict)
    levels: dict[str, float] = field(default_factory=dict)
    xlabel: str = "index i"
    ylabel: str = "σ_i / σ_1"
    yscale: str = "log"


def draw(panels: list[Panel], title: str, files: list[Path]) -> None:
    """Draw the panels and write the figure to each file.

    Args:
        panels: At least one panel.
        title: Title above the figure.
        files: Files to write; the suffix (``.png``, ``.svg``) is the format.
    """
    import matplotlib
    from matplotlib.figure import Figure  # pyplot would open windows and hold global state

    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context({"svg.hashsalt": "smoa_lightning", "font.size": 9}):  # the same SVG every time
        figure = Figure(figsize=(4.2 * columns, 3.1 * rows + 0.9), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for axis, panel in zip(axes, panels, strict=False):
            _draw_panel(axis, panel)
        for axis in axes[len(panels) :]:
            axis.remove()
        handles = {
            label: line
            for axis in axes[: len(panels)]
            for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.suptitle(title)
        columns = 1 if max(map(len, handles)) > 40 else min(3, len(handles))  # run names are long
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
        for file in files:
            kind = file.suffix.removeprefix(".")
            metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
            with replacing(file) as temporary:
                figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)


def _draw_panel(axis: Any, panel: Panel) -> None:
    for number, (label, values) in enumerate(panel.curves.items()):
        style = STYLES[number % len(STYLES)]
        marker = "o" if len(values) < 12 else ""  # a rank of 1 would be invisible as a line
        places = panel.ranks.get(label, range(1, len(values) + 1))
        axis.plot(places, values, style, marker=marker, markersize=3, color=f"C{number}", label=label)
        if label in panel.levels:
            axis.axhline(panel.levels[label], color=f"C{number}", linewidth=0.6, linestyle=(0, (1, 3)))
    if panel.lora_rank is not None:
        label = "rank of a LoRA with as many parameters"
        axis.axvline(panel.lora_rank, color="0.4", linestyle=(0, (2, 2)), label=label)
        axis.annotate(
            f"{panel.lora_rank:.3g}", (panel.lora_rank, 1.0), xytext=(3, -9), textcoords="offset points", color="0.3"
        )
    axis.set(xscale="log", yscale=panel.yscale, title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel)
    axis.grid(True, which="major", alpha=0.3)

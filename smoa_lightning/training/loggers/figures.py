"""Pictures of a run for TensorBoard and other loggers, drawn from numbers."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smoa_lightning.training.loggers.contents import Picture

DPI = 100
SHOWN = 8  # subspaces of one figure


@dataclass(frozen=True)
class Curve:
    """Singular values of a matrix or of a part of it, descending.

    Attributes:
        values: The values.
        first: Index of the first of them, from 0.
    """

    values: Sequence[float]
    first: int = 0


@dataclass(frozen=True)
class Spectra:
    """The spectra of one layer.

    Attributes:
        layer: Its name and shape.
        weight: Of W.
        update: Of W' - W.
        weight_parts: Of the part of W in each subspace.
        update_parts: Of the part of the update in each subspace.
    """

    layer: str
    weight: Curve
    update: Curve
    weight_parts: Sequence[Curve] = field(default=())
    update_parts: Sequence[Curve] = field(default=())


def spectra_picture(name: str, spectra: Spectra) -> Picture:
    """Draw the singular values of W and of the update; each subspace has one colour in both."""
    from matplotlib.ticker import LogLocator

    figure = _figure(11.0, 4.2)
    left, right = figure.subplots(1, 2, gridspec_kw={"left": 0.07, "right": 0.99, "top": 0.85, "bottom": 0.25})
    count = min(len(spectra.weight_parts), SHOWN)
    colours = _colours(count)
    for axis, whole, parts, title in (
        (left, spectra.weight, spectra.weight_parts, "frozen weight W"),
        (right, spectra.update, spectra.update_parts, "update W' − W"),
    ):
        label = "whole matrix" if parts else None
        axis.plot(_places(whole), _shown(whole), color="0.6", linewidth=3, label=label)
        for number, (part, colour) in enumerate(zip(parts[:count], colours, strict=True)):
            axis.plot(_places(part), _shown(part), color=colour, linewidth=1.4, label=f"subspace {number + 1}")
        axis.set(yscale="log", title=title, xlabel="index i", ylabel="singular value")
        axis.minorticks_off()  # they take a third of the time
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.grid(True, alpha=0.3)
        if not any(value > 0 for value in whole.values):
            axis.text(0.5, 0.5, "zero", transform=axis.transAxes, ha="center")
    figure.suptitle(spectra.layer, fontsize=10)
    if spectra.weight_parts:
        more = "" if len(spectra.weight_parts) == count else f" (the first {count} of {len(spectra.weight_parts)})"
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=5, title=f"subspaces{more}", fontsize=8)
    return _png(name, figure)


def _places(curve: Curve) -> list[int]:
    return list(range(curve.first + 1, curve.first + 1 + len(_shown(curve))))


def _shown(curve: Curve) -> list[float]:
    """Leave out values that are zero but for rounding: they would take most of a logarithmic axis."""
    largest = max(curve.values, default=0.0)
    return [value for value in curve.values if value > 1e-6 * largest]


def heat_picture(name: str, title: str, tiles: Sequence[Sequence[float]], shape: tuple[int, int]) -> Picture:
    """Draw a matrix as the root mean squares of its tiles.

    Args:
        name: Name of the picture.
        title: Title above the figure.
        tiles: The root mean squares.
        shape: (d_out, d_in) of the matrix.
    """
    figure = _figure(6.4, 5.2)
    axis = figure.add_axes((0.12, 0.1, 0.7, 0.78))
    image = axis.imshow(
        tiles, aspect="auto", cmap="viridis", interpolation="nearest", extent=(0, shape[1], shape[0], 0), vmin=0
    )
    axis.set(xlabel="input", ylabel="output")
    axis.set_title(title, fontsize=9)
    figure.colorbar(
        image, cax=figure.add_axes((0.84, 0.1, 0.03, 0.78)), label="root mean square of the entries of a tile"
    )
    return _png(name, figure)


def ranks_picture(name: str, history: Mapping[int, Mapping[str, float]], bounds: Mapping[str, int]) -> Picture:
    """Draw the effective rank of the update of each layer over the steps of training.

    Args:
        name: Name of the picture.
        history: Step -> layer -> effective rank.
        bounds: Layer -> largest rank that the method allows.
    """
    layers = list(dict.fromkeys(layer for ranks in history.values() for layer in ranks))
    height = 3.6 + 0.2 * math.ceil(len(layers) / 2)
    figure = _figure(10.0, height)
    axis = figure.add_axes((0.07, 1 - 2.9 / height, 0.91, 2.5 / height))
    for layer, colour in zip(layers, _colours(len(layers)), strict=True):
        steps = [step for step, ranks in history.items() if layer in ranks]
        values = [history[step][layer] for step in steps]
        axis.plot(steps, values, marker="o", markersize=4, color=colour, label=f"{layer} (bound {bounds[layer]})")
    axis.set(xlabel="step", ylabel="effective rank", title="effective rank of the update")
    axis.set_ylim(bottom=0)
    axis.grid(True, alpha=0.3)
    figure.legend(loc="lower center", ncols=2, fontsize=7)
    return _png(name, figure)


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.85 * index / max(1, count - 1)) for index in range(count)]


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # pyplot would open windows and hold global state

    return Figure(figsize=(width, height), dpi=DPI)


def _png(name: str, figure: Any) -> Picture:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})  # the same bytes every time
    width, height = (round(side * DPI) for side in figure.get_size_inches())
    return Picture(name, file.getvalue(), width, height)

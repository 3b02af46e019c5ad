"""The figures of a run's page, each as narrow as a telephone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from smoa_lightning.ablation.report.drawing import picture
from smoa_lightning.ablation.run_page.events import Curve
from smoa_lightning.records.page.document import Picture
from smoa_lightning.records.page.theme import COLOURS, LINES

SIZE = (3.7, 2.6)  # inches
MARKER_POINTS = 30  # a curve with fewer points has markers
MOST_POINTS = 1000  # of a drawn curve
WINDOW = 40  # a curve with more points than this has a running mean


def figure(name: str, caption: str, fill: Callable[[Any], None], height: float = SIZE[1]) -> Picture:
    """Return a figure with one pair of axes.

    Args:
        name: Its name on the page.
        caption: Its caption.
        fill: Draws on the axes.
        height: Height in inches.
    """

    def draw() -> Any:
        from matplotlib.figure import Figure

        drawn = Figure(figsize=(SIZE[0], height), layout="constrained")
        axes = drawn.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True)
        fill(axes)
        return drawn

    return picture(name, caption, draw)


def curve_figure(name: str, caption: str, label: str, curve: Curve, best: int | None = None) -> Picture:
    """Draw one curve over the steps.

    Args:
        name: Name of the figure.
        caption: Its caption.
        label: What the curve is.
        curve: At least one point.
        best: The step of the best checkpoint, as a dashed line.
    """

    def fill(axes: Any) -> None:
        steps, values = thinned(curve)
        noisy = len(steps) > WINDOW and label == "loss"
        axes.plot(steps, values, "o-" if len(steps) < MARKER_POINTS else "-", markersize=3.5, color=COLOURS[0],
                  linewidth=1.0 if noisy else 1.5, alpha=0.4 if noisy else 1.0)  # fmt: skip
        if noisy:
            axes.plot(steps, running_mean(values), color=COLOURS[0], linewidth=1.6)
        if best is not None:
            axes.axvline(best, color=COLOURS[1], linewidth=1.0, linestyle="--")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(label)
        if label == "learning rate":
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))

    return figure(name, caption, fill)


def thinned(curve: Curve) -> tuple[list[float], list[float]]:
    """Return a curve with at most ``MOST_POINTS`` points, each the mean of its neighbours.

    >>> thinned(Curve((1, 2), (0.5, 0.25)))
    ([1, 2], [0.5, 0.25])
    """
    if len(curve) <= MOST_POINTS:
        return list(curve.steps), list(curve.values)
    parts = [np.array_split(np.array(column, dtype=float), MOST_POINTS) for column in (curve.steps, curve.values)]
    steps, values = ([float(piece.mean()) for piece in column] for column in parts)
    return steps, values


def running_mean(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and its neighbours, a twentieth of the curve."""
    half = max(1, len(values) // 40)
    return [float(np.mean(values[max(0, place - half) : place + half + 1])) for place in range(len(values))]


def spectrum_figure(curves: dict[str, list[float]]) -> Picture:
    """Draw the singular values of the update, one line for each kind of layer.

    Args:
        curves: Kind of layer -> its singular values divided by the largest, descending.
    """

    def fill(axes: Any) -> None:
        for number, (kind, values) in enumerate(curves.items()):
            line = LINES[(number // len(COLOURS) + number) % len(LINES)]
            axes.plot(range(1, len(values) + 1), values, line, color=COLOURS[number % len(COLOURS)], label=kind,
                      marker="o" if len(values) < 3 else "", markersize=3)  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="index i", ylabel="σ_i / σ_1")
        axes.legend(frameon=False, fontsize=7.5, loc="lower left")

    caption = "Singular values of the update, median over the measured layers of a kind (from the command rank)."
    return figure("spectrum", caption, fill)


def layer_figure(effective: dict[str, float], bounds: dict[str, float], mean_bound: Curve | None) -> Picture:
    """Draw the effective rank of each measured layer.

    Args:
        effective: Name of a layer -> its effective rank.
        bounds: Name of a layer -> the largest rank that the method allows; empty if these are not known.
        mean_bound: The mean of these, if it was logged.
    """

    def fill(axes: Any) -> None:
        places = range(len(effective))
        axes.plot(list(effective.values()), places, "o", color=COLOURS[0], markersize=4)
        if bounds:
            axes.plot([bounds[name] for name in effective], places, "|", color=COLOURS[1], markersize=8)
        axes.set_yticks(places, [short_layer(name) for name in effective], fontsize=7.5)
        axes.set_ylim(len(effective) - 0.5, -0.5)
        axes.set_xlim(0, max(*effective.values(), *bounds.values(), 1e-9) * 1.08)
        axes.set_xlabel("effective rank")

    caption = "Effective rank of the update in each measured layer."
    if bounds:
        caption += " Vertical marks are the largest ranks that the method allows."
    elif mean_bound is not None:
        caption += f" The method allows a rank of {mean_bound.last:,.0f} on average."
    return figure("layers", caption, fill, max(SIZE[1], 0.17 * len(effective) + 0.7))


def ranks_over_time(effective: Curve, stable: Curve | None) -> Picture:
    """Draw the mean effective and stable rank over the steps."""

    def fill(axes: Any) -> None:
        for number, (label, curve) in enumerate((("effective", effective), ("stable", stable))):
            if curve is not None:
                axes.plot(
                    curve.steps, curve.values, "o" + LINES[number], markersize=3.5, color=COLOURS[number], label=label
                )
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
        axes.set(xlabel="optimizer step", ylabel="rank")
        axes.legend(frameon=False, fontsize=7.5)

    return figure("ranks", "Ranks of the update during training, means over the measured layers.", fill)


def short_layer(name: str) -> str:
    """Return the number and the last word of a layer's name.

    >>> short_layer("model.layers.3.self_attn.v_proj"), short_layer("lm_head")
    ('3 v_proj', 'lm_head')
    """
    words = name.split(".")
    number = next((word for word in words if word.isdigit()), "")
    return f"{number} {words[-1]}".strip()


def finite(curve: Curve | None) -> Curve | None:
    """Return the points that are finite numbers; None if there are none."""
    points = [pair for pair in zip(curve.steps, curve.values, strict=True) if math.isfinite(pair[1])] if curve else []
    return Curve(tuple(step for step, _ in points), tuple(value for _, value in points)) if points else None

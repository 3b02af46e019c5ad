"""Labels of points that cover neither each other nor a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smoa_lightning.ablation.report.ticks import label_inches

SIZE = 7.5  # points
AWAY = 4.5  # points from the middle of the marker
STEP = 3.0  # points between two places of a line
Box = tuple[float, float, float, float]  # left, bottom, right, top in points


def label_points(
    axes: Any, points: Sequence[tuple[float, float, str]], lines: Sequence[Sequence[tuple[float, float]]] = ()
) -> None:
    """Write a label next to each point, at the first of eight places that is free; without a free place, none.

    Call this when the axes have their scales and their size.

    Args:
        axes: The panel.
        points: x, y and label of each point.
        lines: Two ends of each straight line that no label may cover.
    """
    to_points = 72 / axes.figure.dpi
    at = axes.transData.transform([point[:2] for point in points]) * to_points
    frame = axes.get_window_extent().extents * to_points
    taken: list[Box] = [(x - 3, y - 3, x + 3, y + 3) for x, y in at]
    for line in lines:
        first, last = axes.transData.transform(line) * to_points
        steps = 1 + int(max(abs(last - first)) / STEP)
        middles = [first + (last - first) * step / steps for step in range(steps + 1)]
        taken += [(x - STEP / 2, y - STEP / 2, x + STEP / 2, y + STEP / 2) for x, y in middles]
    for (x, y, text), (u, v) in zip(points, at, strict=True):
        if not text:
            continue
        width, height = 72 * label_inches(text, SIZE), 1.25 * SIZE
        for side, down in ((0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (2, 1), (0, 2), (1, 2)):
            left = (u + AWAY, u - AWAY - width, u - width / 2)[side]
            bottom = (v + 2, v - 2 - height, v - height / 2)[down] + ((0, -AWAY)[down == 1] if side == 2 else 0)
            bottom += AWAY if side == 2 and down == 0 else 0
            box = (left, bottom, left + width, bottom + height)
            if _inside(box, frame) and not any(_overlap(box, other) for other in taken):
                offset = (left - u, bottom + 0.2 * SIZE - v)
                axes.annotate(text, (x, y), xytext=offset, textcoords="offset points", fontsize=SIZE, ha="left")
                taken.append(box)
                break


def _inside(box: Box, frame: Sequence[float]) -> bool:
    return frame[0] <= box[0] and frame[1] <= box[1] and box[2] <= frame[2] + 10 and box[3] <= frame[3] + 4


def _overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]

"""Draws the flow charts of the documents, so that the site needs no script from elsewhere.

The documents hold Mermaid text, which GitHub draws by itself. Of Mermaid's language only what they use is read:
``flowchart TD`` or ``LR``, nodes ``id["text"]`` and ``id[("text")]``, and arrows ``a --> b --> c``.
"""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

NODE = re.compile(r'(\w+)(?:\[\(?"([^"]*)"\)?\])?')
CHARACTER, LINE, PADDING = 7.0, 16.0, 10.0  # pixels
BETWEEN_LAYERS, BETWEEN_NODES, ROUTE = 38.0, 18.0, 10.0
FIGURE = (
    '<svg class="flow-chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
    'style="max-width:{width:.0f}px" role="img" aria-label="{label}"><defs><marker id="arrow{key}" viewBox="0 0 8 8" '
    'refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
    "{inner}</svg>"
)


@dataclass
class Chart:
    """A flow chart: its direction, texts of nodes, and arrows."""

    across: bool
    texts: dict[str, str] = field(default_factory=dict)
    arrows: list[tuple[str, str]] = field(default_factory=list)


def parse(text: str) -> Chart:
    """Return the chart of a Mermaid text.

    Raises:
        ValueError: A line is in no form that is read.
    """
    first, *lines = [line.strip() for line in text.strip().splitlines()]
    if first not in ("flowchart TD", "flowchart LR"):
        raise ValueError(f"a chart begins with {first!r}, but must begin with flowchart TD or flowchart LR")
    chart = Chart(across=first.endswith("LR"))
    for line in lines:
        names = []
        for part in line.split("-->"):
            node = NODE.fullmatch(part.strip())
            if node is None:
                raise ValueError(f"cannot read {line!r} of a chart")
            names.append(node[1])
            if node[2] is not None or node[1] not in chart.texts:
                chart.texts[node[1]] = node[2] or node[1]
        chart.arrows += zip(names[:-1], names[1:], strict=True)
    return chart


def layers(chart: Chart) -> list[list[str]]:
    """Return the nodes by layers; an arrow goes to a later layer. Long arrows get a place in each layer between.

    A place is named ``source>target>layer``. Each layer is sorted by the mean position of its neighbours.
    """
    depth: dict[str, int] = {}

    def depth_of(name: str) -> int:
        if name not in depth:
            depth[name] = max((depth_of(a) + 1 for a, b in chart.arrows if b == name), default=0)
        return depth[name]

    rows: dict[int, list[str]] = defaultdict(list)
    for name in chart.texts:
        rows[depth_of(name)].append(name)
    near: dict[str, list[str]] = defaultdict(list)
    for source, target in chart.arrows:
        path = route(source, target, depth)
        for name in path[1:-1]:
            rows[int(name.rpartition(">")[2])].append(name)
        for one, next_one in zip(path[:-1], path[1:], strict=True):
            near[one].append(next_one)
            near[next_one].append(one)
    ordered = [rows[index] for index in sorted(rows)]
    for _ in range(8):
        place = {name: position / len(row) for row in ordered for position, name in enumerate(row)}
        for row in ordered:
            row.sort(key=lambda name: sum(place[n] for n in near[name]) / len(near[name]) if near[name] else place[name])
    return ordered


def route(source: str, target: str, depth: dict[str, int]) -> list[str]:
    """Return the nodes and places along an arrow."""
    between = range(depth[source] + 1, depth[target])
    return [source, *(f"{source}>{target}>{layer}" for layer in between), target]


def figure(text: str, key: int, label: str) -> str:
    """Return a chart as an SVG figure.

    Args:
        text: The Mermaid text.
        key: A number that no other chart of the page has.
        label: What the chart shows, for readers that cannot see it.
    """
    chart = parse(text)
    boxes, width, height = _places(chart)
    depth = {name: index for index, row in enumerate(layers(chart)) for name in row}
    parts = [*_arrows(chart, boxes, depth, key), *_nodes(chart, boxes)]
    return FIGURE.format(width=width, height=height, label=html.escape(label), key=key, inner="".join(parts))


Box = tuple[float, float, float, float]  # left, top, width, height


def _size(chart: Chart, name: str) -> tuple[float, float]:
    if ">" in name:
        return (0.0, ROUTE) if chart.across else (ROUTE, 0.0)
    lines = chart.texts[name].split("<br>")
    return max(map(len, lines)) * CHARACTER + 2 * PADDING, len(lines) * LINE + PADDING


def _places(chart: Chart) -> tuple[dict[str, Box], float, float]:
    """Return the box of each node and place, and the size of the whole."""
    rows = layers(chart)
    along, across = (0, 1) if chart.across else (1, 0)  # the axis of the arrows, and that of a layer
    sizes = {name: _size(chart, name) for row in rows for name in row}
    lengths = [sum(sizes[name][across] for name in row) + BETWEEN_NODES * (len(row) - 1) for row in rows]
    boxes: dict[str, Box] = {}
    start = 2.0
    for row, length in zip(rows, lengths, strict=True):
        thick = max(sizes[name][along] for name in row)
        place = 2.0 + (max(lengths) - length) / 2
        for name in row:
            middle = start + (thick - sizes[name][along]) / 2
            left, top = (middle, place) if chart.across else (place, middle)
            boxes[name] = left, top, *sizes[name]
            place += sizes[name][across] + BETWEEN_NODES
        start += thick + BETWEEN_LAYERS
    whole = start - BETWEEN_LAYERS + 2, max(lengths) + 4
    return boxes, *(whole if chart.across else whole[::-1])


def _arrows(chart: Chart, boxes: dict[str, Box], depth: dict[str, int], key: int) -> Iterator[str]:
    for source, target in chart.arrows:
        points = []
        path = route(source, target, depth)
        for position, name in enumerate(path):
            left, top, width, height = boxes[name]
            share = 1.0 if position == 0 else 0.0 if position == len(path) - 1 else 0.5
            x, y = (left + share * width, top + height / 2) if chart.across else (left + width / 2, top + share * height)
            points.append((x, y))
        line = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
        for (x, y), (to_x, to_y) in zip(points[:-1], points[1:], strict=True):
            if chart.across:
                bend = f"{(x + to_x) / 2:.1f} {y:.1f} {(x + to_x) / 2:.1f} {to_y:.1f}"
            else:
                bend = f"{x:.1f} {(y + to_y) / 2:.1f} {to_x:.1f} {(y + to_y) / 2:.1f}"
            line += f"C{bend} {to_x:.1f} {to_y:.1f}"
        yield f'<path class="arrow" d="{line}" marker-end="url(#arrow{key})"/>'


def _nodes(chart: Chart, boxes: dict[str, Box]) -> Iterator[str]:
    for name, text in chart.texts.items():
        left, top, width, height = boxes[name]
        yield f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5"/>'
        for number, line in enumerate(text.split("<br>")):
            y = top + PADDING / 2 + LINE * (number + 0.75)
            yield f'<text x="{left + width / 2:.1f}" y="{y:.1f}">{html.escape(line)}</text>'

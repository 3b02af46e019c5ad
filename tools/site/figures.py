"""Draws the figures of docs/figures: ``python -m tools.site.figures``. A test compares the files with new ones.

``subspaces.svg`` explains the update of SMoA. ``rank_and_accuracy.svg`` shows the tables of results/.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "figures"
INK, QUIET, RULE = "#222222", "#666666", "#d5d5d5"
BLUE, ORANGE = "#1f77b4", "#d97706"
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    'font-family="Helvetica, Arial, sans-serif" font-size="13" role="img"><title>{title}</title>'
    '<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>'
)


def text(x: float, y: float, words: str, anchor: str = "start", color: str = INK, more: str = "") -> str:
    """Return a line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"{more}>{words}</text>'


def rectangle(x: float, y: float, width: float, height: float, fill: str, opacity: float = 1.0) -> str:
    """Return a filled rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}" fill-opacity="{opacity:.2f}"/>'


def line(x: float, y: float, to_x: float, to_y: float, color: str = INK, more: str = "") -> str:
    """Return a line."""
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{color}"{more}/>'


# ---------------------------------------------------------------------------------------------------- the subspaces

SIDE, CELL = 8, 19  # rows and columns of the drawn W, and their size
FIRST_ROWS, FIRST_COLUMNS = (1, 2, 5, 7), (0, 3, 4, 6)  # coordinates of the first subspace, in the order of W


def subspaces() -> str:
    """Return the figure of W, its reordered form, and the update of two subspaces."""
    top, size = 70, SIDE * CELL
    lefts = [24, 24 + size + 92, 24 + 2 * (size + 92)]
    rows = [*FIRST_ROWS, *(row for row in range(SIDE) if row not in FIRST_ROWS)]
    columns = [*FIRST_COLUMNS, *(column for column in range(SIDE) if column not in FIRST_COLUMNS)]
    parts = [HEAD.format(width=696, height=342, title="How SMoA divides a weight into subspaces")]
    parts += _matrix(lefts[0], top, range(SIDE), range(SIDE), outside=0.16)
    parts += _matrix(lefts[1], top, rows, columns, outside=0.16)
    parts += _matrix(lefts[2], top, rows, columns, outside=0.0)
    half = size / 2
    for left, heading in zip(lefts, ("W, frozen", "rows and columns reordered", "the update"), strict=True):
        parts.append(text(left, top - 34, heading, more=' font-weight="bold"'))
        parts.append(f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="none" stroke="{INK}"/>')
    for left, words in ((lefts[0], "its own order"), (lefts[1], "principal directions first"), (lefts[2], "the rest stays 0")):
        parts.append(text(left, top - 14, words, color=QUIET))
    for left, words in ((lefts[0] + size, "sort by"), (lefts[1] + size, "train")):
        y = top + half
        parts.append(line(left + 14, y, left + 74, y, QUIET, ' stroke-width="2"'))
        parts.append(f'<path d="M{left + 74:.0f} {y - 6:.0f}l12 6l-12 6z" fill="{QUIET}"/>')
        parts.append(text(left + 46, y - 12, words, "middle", QUIET))
    parts.append(text(lefts[0] + size + 46, top + half + 22, "spectrum", "middle", QUIET))
    parts.append(text(lefts[1] + size + 46, top + half + 22, "A, B", "middle", QUIET))
    for number, (color, offset) in enumerate(((BLUE, 0.0), (ORANGE, half)), 1):
        for left in lefts[1:]:
            parts.append(
                f'<rect x="{left + offset:.1f}" y="{top + offset:.1f}" width="{half:.1f}" height="{half:.1f}" '
                f'fill="none" stroke="{color}" stroke-width="3"/>'
            )
        parts.append(text(lefts[1] + offset + half / 2, top + offset + half / 2 + 5, f"W{number}", "middle",
                          more=' font-weight="bold"'))  # fmt: skip
        label = f"(B{number} A{number}) ∘ W{number}"
        parts.append(text(lefts[2] + offset + half / 2, top + offset + half / 2 + 4, label, "middle",
                          more=' font-size="11" font-weight="bold"'))  # fmt: skip
    notes = (
        "Each coloured block k has its own small factors: B of d/K × r/K and A of r/K × d/K.",
        "∘ multiplies entry by entry, so the update amplifies or weakens entries of W, and its rank can be full.",
        "LoRA adds B A instead: its rank is at most r. With K = 2, SMoA blocks train half of LoRA's parameters.",
    )
    parts += [text(24, top + size + 40 + 22 * number, words) for number, words in enumerate(notes)]
    return "".join(parts) + "</svg>\n"


def _matrix(left: float, top: float, rows: range | list[int], columns: range | list[int], outside: float) -> Iterator[str]:
    """Yield the entries of W; those within a subspace have its colour, the others ``outside`` as their strength."""
    for place, row in enumerate(rows):
        for along, column in enumerate(columns):
            first = row in FIRST_ROWS
            strength = 0.25 + 0.5 * (((row * 5 + column * 3 + row * column) % 7) / 6)
            inside = first == (column in FIRST_COLUMNS)
            color = (BLUE if first else ORANGE) if inside else QUIET
            if inside or outside:
                x, y = left + along * CELL, top + place * CELL
                yield rectangle(x, y, CELL, CELL, color, strength if inside else outside * (0.5 + strength))


# ------------------------------------------------------------------------------------------------- rank and accuracy

LEFT, RIGHT, TOP, ROW = 150.0, 560.0, 96.0, 34.0
LOWEST, HIGHEST = 0.30, 0.50
BASE_MODEL = re.compile(r"backbone has acc (0\.\d+) ± (0\.\d+)")
NAMES = {"lora": "LoRA", "mora": "MoRA", "hira": "HiRA", "smoa_blocks": "SMoA blocks", "surm_circulant": "SURM circulant"}


def rank_and_accuracy() -> str:
    """Return the figure of the accuracy of five methods of one size, sorted by the effective rank of their updates."""
    cells = sorted(_cells("methods"), key=lambda cell: cell[1])
    bottom = TOP + ROW * len(cells)
    base, error = _base_model("methods")
    parts = [
        HEAD.format(width=696, height=f"{bottom + 92:.0f}", title="Accuracy and effective rank of five methods on SocialIQA"),
        text(24, 28, "A high rank of the update did not raise the accuracy", more=' font-size="16" font-weight="bold"'),
        text(24, 50, "Five methods with 1.6 M trainable parameters on SocialIQA, each at its own best learning rate", color=QUIET),
        text(RIGHT + 112, TOP - 10, "effective rank", "end", QUIET),
    ]
    for share in (0.30, 0.35, 0.40, 0.45, 0.50):
        parts.append(line(_x(share), TOP, _x(share), bottom, RULE))
        parts.append(text(_x(share), bottom + 20, f"{100 * share:.0f} %", "middle", QUIET))
    parts.append(line(_x(base), TOP - 4, _x(base), bottom, INK, ' stroke-dasharray="5 4"'))
    parts.append(text(_x(base), TOP - 10, f"base model {100 * base:.1f} %", "middle", INK))
    for number, (name, rank, mean, low, high) in enumerate(cells):
        y = TOP + ROW * (number + 0.5)
        parts.append(text(24, y + 5, NAMES.get(name, name)))
        parts.append(line(_x(low), y, _x(high), y, BLUE, ' stroke-width="2.5"'))
        parts.append(f'<circle cx="{_x(mean):.1f}" cy="{y:.1f}" r="5" fill="{BLUE}"/>')
        parts.append(text(RIGHT + 112, y + 5, f"{rank:.0f}", "end"))
    notes = (
        "Accuracy: mean of 3 seeds and its 95 % interval. SmolLM2-135M, 320 training rows, 300 report rows.",
        f"No difference between methods is established. Standard error of the base model over the rows: {100 * error:.1f} points.",
    )
    parts += [text(24, bottom + 50 + 22 * number, words, color=QUIET) for number, words in enumerate(notes)]
    return "".join(parts) + "</svg>\n"


def _x(share: float) -> float:
    return LEFT + (RIGHT - LEFT) * (share - LOWEST) / (HIGHEST - LOWEST)


def _base_model(study: str) -> tuple[float, float]:
    """Return the accuracy of the base model and its standard error over the items, from a study's report."""
    found = BASE_MODEL.search((ROOT / "results" / "underpowered" / study / "report.md").read_text(encoding="utf-8"))
    assert found is not None
    return float(found[1]), float(found[2])


def _cells(study: str) -> Iterator[tuple[str, float, float, float, float]]:
    """Yield name, effective rank, mean accuracy and its 95 % interval of each cell of a study."""
    with (ROOT / "results" / "underpowered" / study / "tables" / "cells.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            mean, low, high = (float(number) for number in re.findall(r"\d\.\d+", row["mean over seeds, 95 % interval"]))
            yield row["cell"].partition("=")[2], float(row["effective rank"]), mean, low, high


FIGURES = {"subspaces.svg": subspaces, "rank_and_accuracy.svg": rank_and_accuracy}


def main() -> None:
    """Write all figures."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()

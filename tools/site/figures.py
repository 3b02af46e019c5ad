"""Draws the figures of docs/figures: ``python -m tools.site.figures``. A test compares the files with new ones.

``subspaces.svg`` explains the update of SMoA. ``rank_and_accuracy.svg`` shows the tables of results/.
"""

from __future__ import annotations

import csv
import math
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

LEFT, RIGHT, TOP, ROW = 150.0, 480.0, 96.0, 34.0
STUDY = ROOT / "results" / "does_rank_help" / "tables"
TITLE = "A hundred times the rank, the same gain"
NAMES = {"lora_r8": "LoRA, r = 8", "hira": "HiRA", "smoa_blocks": "SMoA blocks", "circulant": "SURM circulant"}


def rank_and_accuracy() -> str:
    """Return the figure of what each method gains over the base model, sorted by the effective rank of its update."""
    cells = {row["cell"]: row for row in _table("cells")}
    verdicts = {row["cell"]: row["verdict"] for row in _table("differences")}
    gains = sorted(_table("gains"), key=lambda row: float(cells[row["cell"]]["effective_rank"]))
    bottom, most = TOP + ROW * len(gains), max(100 * float(row["high_corrected"]) for row in gains)
    parts = [
        HEAD.format(width=720, height=f"{bottom + 92:.0f}", title="Gain and effective rank of four methods on SocialIQA"),
        text(24, 28, TITLE, more=' font-size="16" font-weight="bold"'),
        text(24, 50, "SmolLM2-135M on SocialIQA, 1.6 M trained parameters, each method at its own best learning rate", color=QUIET),
        text(LEFT, TOP - 10, "base model", "middle", INK),
        text(RIGHT + 76, TOP - 10, "effective rank", "middle", QUIET),
        text(696, TOP - 10, "against LoRA", "end", QUIET),
    ]

    def x(points: float) -> float:
        return LEFT + (RIGHT - LEFT) * points / math.ceil(most)

    for points in range(0, math.ceil(most) + 1, 2):
        parts.append(line(x(points), TOP, x(points), bottom, INK if points == 0 else RULE))
        parts.append(text(x(points), bottom + 20, f"{points:+d}" if points else "0", "middle", QUIET))
    for number, row in enumerate(gains):
        y, name = TOP + ROW * (number + 0.5), row["cell"].partition("=")[2]
        mean, low, high = (100 * float(row[key]) for key in ("difference", "low_corrected", "high_corrected"))
        parts.append(text(24, y + 5, NAMES.get(name, name)))
        parts.append(line(x(max(low, 0)), y, x(high), y, BLUE, ' stroke-width="2.5"'))
        parts.append(f'<circle cx="{x(mean):.1f}" cy="{y:.1f}" r="5" fill="{BLUE}"/>')
        parts.append(text(RIGHT + 76, y + 5, f"{float(cells[row['cell']]['effective_rank']):.0f}", "middle"))
        parts.append(text(696, y + 5, verdicts.get(row["cell"], "").partition(" ")[0], "end"))
    seeds, items = gains[0]["n_seeds"], int(gains[0]["n_items"])
    notes = (
        f"Gain of the expected accuracy over the base model in points, mean of {seeds} seeds, {items:,} report rows.",
        "Lines: 95 % intervals. Equivalent: the paired difference from LoRA lies within one point.",
    )
    parts += [text(24, bottom + 50 + 22 * number, words, color=QUIET) for number, words in enumerate(notes)]
    return "".join(parts) + "</svg>\n"


def _table(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of the study."""
    with (STUDY / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


FIGURES = {"subspaces.svg": subspaces, "rank_and_accuracy.svg": rank_and_accuracy}


def main() -> None:
    """Write all figures."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()

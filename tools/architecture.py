"""Draw the rooms of the package from its imports: ``python -m tools.architecture`` (or ``make architecture``).

The figure is Mermaid text between two marks in ``docs/architecture.md``. ``tests/test_imports.py`` compares it with a
new one.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "smoa_lightning"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: made by tools/architecture.py -->", "<!-- end of rooms -->"
OPEN = ("data", "ablation")  # rooms with further rooms inside
FACES = ("__init__", "__main__", "version")  # files in no room: public names, the entry point, a constant

Arrows = dict[tuple[str, str], int]


def room_of(parts: tuple[str, ...]) -> str | None:
    """Return the room of a module from its dotted name below the package; ``None`` for the package's own files."""
    if not parts or parts[0] in FACES:
        return None
    if parts[0] in OPEN and len(parts) > 1 and (PACKAGE / parts[0] / parts[1]).is_dir():
        return f"{parts[0]}/{parts[1]}"
    return parts[0]


def arrows() -> Arrows:
    """Return (importing room, imported room) -> number of files of the first room that import from the second."""
    importers: dict[tuple[str, str], set[Path]] = {}
    for path in PACKAGE.rglob("*.py"):
        here = room_of(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _imported(node):
                there = room_of(tuple(name.split(".")[1:]))
                if name.startswith("smoa_lightning.") and here and there and here != there:
                    importers.setdefault((here, there), set()).add(path)
    return {pair: len(files) for pair, files in sorted(importers.items())}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def floors(found: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Return the floor of each room: one above the highest room that it imports.

    Raises:
        ValueError: Rooms import each other in a circle.
    """
    rooms = sorted({room for pair in found for room in pair})
    level: dict[str, int] = {}
    while len(level) < len(rooms):
        ready = [r for r in rooms if r not in level and all(b in level for a, b in found if a == r)]
        if not ready:
            raise ValueError(f"rooms in a circle: {', '.join(sorted(set(rooms) - level.keys()))}")
        level |= {room: max((level[b] + 1 for a, b in found if a == room), default=1) for room in ready}
    return level


def reduced(found: Mapping[tuple[str, str], int]) -> list[tuple[str, str]]:
    """Return the arrows that are not implied by a longer path, so that the figure stays readable."""
    below: dict[str, set[str]] = {}

    def reach(room: str) -> set[str]:
        if room not in below:
            direct = {b for a, b in found if a == room}
            below[room] = direct.union(*(reach(b) for b in direct)) if direct else set()
        return below[room]

    return [(a, b) for a, b in found if not any(b in reach(c) for x, c in found if x == a and c != b)]


def figure() -> str:
    """Return the rooms as a Mermaid figure, with a line that counts them."""
    found = arrows()
    level = floors(found)
    lines = ["```mermaid", "flowchart TD"]
    lines += [f'  {_id(room)}["{room}"]' for room in sorted(level, key=lambda room: (-level[room], room))]
    lines += [f"  {_id(a)} --> {_id(b)}" for a, b in reduced(found)]
    counts = f"{len(level)} rooms on {max(level.values())} floors, {len(found)} arrows, no circle."
    note = "The figure leaves out arrows that a longer path through other rooms implies."
    return "\n".join([*lines, "```", "", f"{counts} {note}"])


def _id(room: str) -> str:
    return room.replace("/", "_")


def page(text: str) -> str:
    """Return a page with a new figure between its marks."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{figure()}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Write the figure into the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()

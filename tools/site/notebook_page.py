"""A notebook as a page of Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def cells(notebook: Path) -> list[tuple[str, str]]:
    """Return the kind (``markdown`` or ``code``) and the text of each cell of a notebook."""
    content: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]


def page(notebook: Path) -> str:
    """Return the page of a notebook."""
    return "\n\n".join(_blocks(notebook)) + "\n"


def _blocks(notebook: Path) -> Iterator[str]:
    for kind, text in cells(notebook):
        yield text if kind == "markdown" else f"```python\n{text}\n```"
    yield f"The notebook itself: [{notebook.name}]({notebook.name})."

"""The notebook runs from its first to its last cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tools.site.notebook_page import cells, page

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "first_adapter.ipynb"


@pytest.mark.filterwarnings("default")  # the warnings of libraries, which a user sees too
def test_the_notebook_runs_from_the_first_to_the_last_cell(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, (kind, text) in enumerate(cells(NOTEBOOK)):
        if kind == "code":
            exec(compile(text, f"cell {number}", "exec"), names)
    assert len(names["losses"]) == 24
    assert sum(names["losses"][-12:]) < sum(names["losses"][:12])
    assert names["rank"].effective > 16  # more directions than r
    assert "accuracy before" in capsys.readouterr().out


def test_no_output_is_committed_and_the_page_has_all_cells() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert text.count('"outputs": []') == text.count('"cell_type": "code"')
    assert page(NOTEBOOK).count("```python") == text.count('"cell_type": "code"')

"""Two methods, each with a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ablation.made_run import SMOA, choice_items, embedded_digest, make_run
from tests.commands.compare.shared import BASE, FIRST, SECOND


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two methods on the embedded PIQA rows, whose texts can be read."""
    digest = embedded_digest("piqa")
    base = choice_items(BASE)
    first = make_run(tmp_path / "a", choice_items(FIRST), base, digest=digest)
    second = make_run(tmp_path / "b", choice_items(SECOND), base, digest=digest, adapter=SMOA)
    return [str(first), str(second)]

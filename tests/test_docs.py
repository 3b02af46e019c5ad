"""What is shipped is documented."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_strategy_is_documented_and_every_documented_one_is_shipped() -> None:
    shipped = {file.stem for file in (ROOT / "experiments" / "adapters").glob("*.yaml")}
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    documented = {name for cell in rows for name in re.findall(r"`([\w-]+)`", cell)} | {"full", "frozen"}
    assert documented == shipped

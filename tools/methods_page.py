"""Write the tables of ``docs/methods.md`` from ``configuration/methods.yaml``: ``python -m tools.methods_page``.

``--check`` compares the page with the data and changes nothing. ``make methods`` writes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from smoa_lightning.configuration.methods import Method, methods

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
BEGIN, END = "<!-- table of {}: made by tools/methods_page.py -->", "<!-- end of table -->"
GROUPS = ("ours", "peft", "none")
TITLES = ("file", "update", "trainable", "rank ≤", "merge", "budget", "source")


def table(group: str) -> str:
    """Return the table of a group of strategies in Markdown."""
    lines = [f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|"]
    for method in methods().values():
        if method.group == group:
            lines.append(f"| {' | '.join(_cells(method))} |")
    return "\n".join(lines)


def _cells(method: Method) -> list[str]:
    budget = ", ".join(f"`{name}`" for name in method.budget) or "no"
    texts = [method.update, method.trainable, method.rank, "yes" if method.merge else "no", budget, method.source]
    return [f"`{method.key}`", *(text.replace("|", "\\|") for text in texts)]


def page(text: str) -> str:
    """Return the page with fresh tables."""
    for group in GROUPS:
        begin = BEGIN.format(group)
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{table(group)}\n{END}{rest.partition(END)[2]}"
    return text


def main() -> int:
    """Write the page, or compare it with ``--check``; return the exit status."""
    text = PAGE.read_text(encoding="utf-8")
    fresh = page(text)
    if "--check" in sys.argv[1:]:
        if text != fresh:
            print(f"{PAGE} differs from the data: run python -m tools.methods_page", file=sys.stderr)
        return int(text != fresh)
    PAGE.write_text(fresh, encoding="utf-8")
    print(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a Google-style docstring says: its first sentence, and the meaning of each argument."""

from __future__ import annotations

import re

_ENTRY = re.compile(r"^\*{0,2}(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")


def first_sentence(docstring: str) -> str:
    """Return the summary of a docstring, without its full stop."""
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[a-z)`])\.(?:\s|$)", plain(paragraph))[0].rstrip(".")


def argument_texts(docstring: str) -> dict[str, str]:
    """Return argument -> meaning from the section ``Args:``.

    >>> argument_texts("Do it.\\n\\nArgs:\\n    a: The first\\n        one.\\n    b: Two.\\n\\nReturns:\\n    c: No.")
    {'a': 'The first one.', 'b': 'Two.'}
    """
    lines = docstring.splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip() in ("Args:", "Arguments:")), None)
    if start is None:
        return {}
    margin = len(lines[start]) - len(lines[start].lstrip())
    found: dict[str, list[str]] = {}
    indent, name = None, ""
    for line in lines[start + 1 :]:
        depth = len(line) - len(line.lstrip())
        if not line.strip():
            continue
        if depth <= margin:
            break
        indent = depth if indent is None else indent
        entry = _ENTRY.match(line.strip()) if depth == indent else None
        if entry:
            name = entry[1]
            found[name] = [entry[2]]
        elif name:
            found[name].append(line.strip())
    return {key: " ".join(" ".join(parts).split()) for key, parts in found.items()}


def plain(text: str) -> str:
    """Return a text without the marks of reStructuredText."""
    text = re.sub(r":\w+:`~?([^`]*)`", lambda found: found[1].split(" <")[0], text)
    return text.replace("``", "").replace("`", "")

"""A report as Markdown."""

from __future__ import annotations

import re

from smoa_lightning.records.page.document import (
    FIGURES,
    Block,
    Code,
    Document,
    Figures,
    Fold,
    Heading,
    Paragraph,
    Picture,
    Points,
    Row,
    Table,
)

ENTITY = re.compile(r"&(?=#?\w+;)")


def markdown(document: Document) -> str:
    """Return a document as Markdown; its figures are in the folder ``figures`` next to it."""
    parts = [f"# {_text(document.title)}", *(_block(block) for block in document.blocks)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"## {_text(block.text)}"
    if isinstance(block, Paragraph):
        return _text(block.text)
    if isinstance(block, Points):
        return "\n".join(f"* {_text(sentence)}" for sentence in block.sentences)
    if isinstance(block, Picture):
        return f"![{_plain(block.caption)}]({FIGURES}/{block.name}.svg)\n\n*{_text(block.caption)}*"
    if isinstance(block, Figures):
        return "\n\n".join(_block(picture) for picture in block.pictures)
    if isinstance(block, Code):
        return "\n".join(f"    {line}" for line in block.text.splitlines())
    if isinstance(block, Fold):
        return "\n\n".join([f"**{_text(block.summary)}**", *(_block(inner) for inner in block.blocks)])
    if isinstance(block, Row):
        return "\n\n".join(map(_block, block.blocks))
    return _table(block)


def _table(table: Table) -> str:
    rules = ["---:" if column.numbers else "---" for column in table.columns]
    lines = [_row(table.titles), f"|{'|'.join(rules)}|"]
    for number, row in enumerate(table.rows):
        lines.append(_row([f"**{text}**" if number in table.best and text else text for text in row]))
    return f"{_text(table.caption)}\n\n" + "\n".join(lines)


def _row(texts: list[str]) -> str:
    return f"| {' | '.join(_text(text).replace('|', chr(92) + '|') for text in texts)} |"


def _plain(text: str) -> str:
    return _text(text.replace("[", "(").replace("]", ")"))


def _text(text: str) -> str:
    """Return a text on one line that is no HTML and no link; names in a study can have any characters."""
    text = " ".join(text.splitlines())
    return ENTITY.sub("&amp;", text).replace("<", "&lt;").replace("](", "]\\(")

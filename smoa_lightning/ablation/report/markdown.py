"""A report as Markdown."""

from __future__ import annotations

from smoa_lightning.ablation.report.document import (
    FIGURES,
    Block,
    Document,
    Heading,
    Paragraph,
    Picture,
    Points,
    Table,
)


def markdown(document: Document) -> str:
    """Return a document as Markdown; its figures are in the folder ``figures`` next to it."""
    parts = [f"# {document.title}", *(_block(block) for block in document.blocks)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"## {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Points):
        return "\n".join(f"* {sentence}" for sentence in block.sentences)
    if isinstance(block, Picture):
        return f"![{_plain(block.caption)}]({FIGURES}/{block.name}.svg)\n\n*{block.caption}*"
    return _table(block)


def _table(table: Table) -> str:
    rules = ["---:" if column.numbers else "---" for column in table.columns]
    lines = [_row(table.titles), f"|{'|'.join(rules)}|"]
    for number, row in enumerate(table.rows):
        lines.append(_row([f"**{text}**" if number in table.best and text else text for text in row]))
    return f"{table.caption}\n\n" + "\n".join(lines)


def _row(texts: list[str]) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"


def _plain(text: str) -> str:
    return text.replace("[", "(").replace("]", ")")

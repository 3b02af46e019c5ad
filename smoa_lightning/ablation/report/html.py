"""A report as one HTML page that loads nothing: it contains the styles and figures, and has no scripts."""

from __future__ import annotations

import html
import re

from smoa_lightning.ablation.report.document import Block, Document, Heading, Paragraph, Picture, Points, Table

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 74rem; margin: 0 auto;
  padding: 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid #ddd; padding-bottom: .25rem; }
p, ul { max-width: 48rem; }
li { margin: .3rem 0; }
figure { margin: 1.4rem 0; }
figure svg { max-width: 100%; height: auto; }
figcaption, caption { color: #444; font-size: .9rem; text-align: left; padding: .3rem 0; max-width: 48rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e4e4e4; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #888; font-weight: 600; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr.best td { font-weight: 600; }
@media print { body { max-width: none; padding: 0; } .wide { overflow: visible; } figure { break-inside: avoid; } }
"""


def page(document: Document) -> str:
    """Return a document as an HTML page."""
    title = html.escape(document.title)
    body = "\n".join(_block(block) for block in document.blocks)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h2>{html.escape(block.text)}</h2>"
    if isinstance(block, Paragraph):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Points):
        return "<ul>\n" + "\n".join(f"<li>{html.escape(text)}</li>" for text in block.sentences) + "\n</ul>"
    if isinstance(block, Picture):
        caption = html.escape(block.caption)
        drawing = _inline(block.svg, block.name, caption)
        text = f"<figcaption>{caption}</figcaption>"
        return f'<figure id="{block.name}">\n<div class="wide">{drawing}</div>\n{text}\n</figure>'
    return _table(block)


def _inline(svg: str, name: str, caption: str) -> str:
    """Return an SVG for use inside a page: without its header, and with identifiers that are unique on the page."""
    drawing = svg[svg.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", drawing)
    return drawing.replace("<svg", f'<svg role="img" aria-label="{caption}"', 1).strip()


def _table(table: Table) -> str:
    kinds = [' class="number"' if column.numbers else "" for column in table.columns]
    head = "".join(f"<th{kind}>{html.escape(title)}</th>" for kind, title in zip(kinds, table.titles, strict=True))
    rows = []
    for number, row in enumerate(table.rows):
        mark = ' class="best"' if number in table.best else ""
        cells = "".join(f"<td{kind}>{html.escape(text)}</td>" for kind, text in zip(kinds, row, strict=True))
        rows.append(f"<tr{mark}>{cells}</tr>")
    body = "\n".join(rows)
    return (
        f'<div class="wide">\n<table id="{table.name}">\n<caption>{html.escape(table.caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )

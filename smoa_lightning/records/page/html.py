"""A document as one HTML page that loads nothing: it contains the styles and figures, and has no scripts.

The skeleton is ``page.html.jinja`` and the stylesheet ``style.css``, for light and dark screens of any width.
"""

from __future__ import annotations

import functools
import html
import re
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from smoa_lightning.records.page.document import Document, Picture
from smoa_lightning.records.page.theme import PAPER, themed

FOLDER = Path(__file__).parent
COMMA = re.compile(r",(?=[\w.]+=)")  # of the name of a cell, such as method=lora,r=8
NARROW = 345  # points: a figure of this width is readable on a telephone without scrolling
BLACK = re.compile(r"#000(?:000)?\b")
WHITE = re.compile(r"#fff(?:fff)?\b", re.IGNORECASE)


def page(document: Document) -> str:
    """Return a document as an HTML page."""
    return _template().render(document=document, style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")))


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"kind": lambda block: type(block).__name__, "drawing": drawing}
    environment.globals["zip"] = zip
    environment.filters |= {"inline": inline, "breakable": breakable}
    return environment.get_template("page.html.jinja")


def inline(text: str) -> Markup:
    """Return a sentence with the parts between backticks as code.

    >>> inline("run `fit <NAME>` first")
    Markup('run <code>fit &lt;NAME&gt;</code> first')
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def drawing(picture: Picture) -> Markup:
    """Return a figure for use inside a page: without its header, and with identifiers that are unique on the page.

    Black becomes the colour of the text and white that of the page, and the colours of the theme become variables. So a
    figure is readable on a dark page.
    """
    name, caption = picture.name, html.escape(picture.caption)
    svg = picture.svg[picture.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = themed(WHITE.sub(PAPER, BLACK.sub("currentColor", svg)))
    width = re.search(r'<svg[^>]*\bwidth="([\d.]+)(pt|px)?"', svg)  # the stylesheet lets a wide figure scroll
    style = f' style="--width: {width[1]}{width[2] or "px"}"' if width else ""
    narrow = ' class="narrow"' if width and width[2] == "pt" and float(width[1]) <= NARROW else ""
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{caption}"{style}{narrow}', 1)
    return Markup(svg.strip())  # matplotlib has escaped the texts inside


def breakable(text: str) -> Markup:
    """Return a text that may break after the commas of long names of cells.

    >>> breakable("a=<1>,b=2")
    Markup('a=&lt;1&gt;,<wbr>b=2')
    """
    return Markup(COMMA.sub(",<wbr>", str(escape(text))))

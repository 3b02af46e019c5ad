"""Colours of all figures, and their variants for a dark page.

A figure has each colour of ``VARIABLES`` only in its role. So a page can replace a colour by a CSS variable, and the
browser chooses between the light and the dark variant. The files of the figures keep the light colours.
"""

from __future__ import annotations

import re
from typing import Any

INK, MUTED, RULE, PAPER = "#1a1a1a", "#767676", "#e2e2e2", "#ffffff"
# Okabe and Ito's colours, which people with any colour vision can distinguish; grey instead of black, which is the ink.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b5b5b", "#999933")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")
# Texts inside of coloured fields. They are no colours of the theme, since the fields are the same on a dark page.
ON_LIGHT, ON_DARK = "#101010", "#fafafa"

# Colour -> its CSS variable. style.css has the variants for dark pages.
VARIABLES = {
    INK: "ink", MUTED: "figure-muted", RULE: "figure-rule", PAPER: "paper",
    **{colour: f"figure-{number}" for number, colour in enumerate(COLOURS, start=1)},
}  # fmt: skip
_COLOUR = re.compile("|".join(VARIABLES))

# Settings of matplotlib for all figures. Fonts of a PDF are TrueType: many publishers refuse type 3 fonts.
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "smoa_lightning", "svg.fonttype": "none", "pdf.fonttype": 42, "font.size": 9.5,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.facecolor": "none", "figure.facecolor": PAPER, "savefig.facecolor": PAPER, "axes.titlecolor": INK,
    "axes.linewidth": 0.8, "grid.color": RULE, "grid.linewidth": 0.7,
}  # fmt: skip


def themed(svg: str) -> str:
    """Return an SVG whose colours are CSS variables, with the light colours as defaults.

    >>> themed('<path style="stroke: #1a1a1a"/>')
    '<path style="stroke: var(--ink, #1a1a1a)"/>'
    """
    return _COLOUR.sub(lambda found: f"var(--{VARIABLES[found[0]]}, {found[0]})", svg)

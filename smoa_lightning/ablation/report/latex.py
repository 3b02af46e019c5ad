"""Tables of a report as LaTeX, in the style of booktabs."""

from __future__ import annotations

from smoa_lightning.records.page.document import Table

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "…": r"\dots{}",
}  # fmt: skip


def latex(table: Table) -> str:
    r"""Return a table as LaTeX; needs ``\usepackage{booktabs}``."""
    kinds = "".join("r" if column.numbers else "l" for column in table.columns)
    lines = [r"% \usepackage{booktabs}", r"\begin{table}", r"\centering", rf"\caption{{{escape(table.caption)}}}"]
    lines += [rf"\label{{tab:{table.name}}}", rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
    lines += [_row([escape(title) for title in table.titles]), r"\midrule"]
    for number, row in enumerate(table.rows):
        texts = [escape(text) for text in row]
        lines.append(_row([rf"\textbf{{{text}}}" if number in table.best and text else text for text in texts]))
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    r"""Return a text with its special characters escaped for LaTeX.

    >>> escape("50 % of r_1 & K")
    '50 \\% of r\\_1 \\& K'
    """
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def _row(texts: list[str]) -> str:
    return " & ".join(texts) + r" \\"

"""The files of ``report``: one page that loads nothing, LaTeX that compiles, figures with reproducible bytes."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.ablation.report.analysis import analyse
from smoa_lightning.ablation.report.folder import read_study
from smoa_lightning.ablation.report.latex import latex
from smoa_lightning.ablation.report.markdown import markdown
from smoa_lightning.ablation.report.summary import opening
from smoa_lightning.commands.report import FORMATS, write_report
from smoa_lightning.records.page.document import Table, columns
from smoa_lightning.records.page.html import page
from tests.ablation.made_study import make_study
from tests.browser import BROWSER, FLAGS


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid of methods, ranks and subspaces with a search, so that every figure has data."""
    cells: dict[str, dict[str, Any]] = {
        f"method={m},r={r},num_subspaces={k}": {
            "labels": {"method": m, "r": str(r), "num_subspaces": str(k)}, "accuracy": 0.4 + 0.03 * n,
            "parameters": 1000 * r, "rank": 10.0 * r * k, "r": r, "num_subspaces": k,
        }
        for n, m in enumerate(("lo&ra", "<b>smoa")) for r in (4, 8) for k in (1, 2)
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, cells, search=True, items=60)
    write_report(folder, folder / "report", FORMATS)
    return folder / "report"


FIGURES = [
    "costs",
    "costs_by_subspaces",
    "forest",
    "heat_map",
    "parameters",
    "rank",
    "sensitivity",
    "subspaces",
    "update_rank",
]
TABLES = ["cells", "differences", "effects", "gains", "levels", "runs", "searches", "trials"]


def test_all_files_are_there(study: Path) -> None:
    assert sorted(f.stem for f in study.glob("figures/*.svg")) == FIGURES
    assert sorted(f.stem for f in study.glob("figures/*.png")) == FIGURES
    assert sorted(f.stem for f in study.glob("figures/*.pdf")) == FIGURES
    assert sorted(f.stem for f in study.glob("tables/*.csv")) == TABLES
    assert sorted(f.name for f in study.glob("tables/*.tex")) == [
        "cells.tex",
        "differences.tex",
        "gains.tex",
        "sizes.tex",
    ]
    assert sorted(f.name for f in study.iterdir()) == ["figures", "report.html", "report.md", "tables"]


class _Page(HTMLParser):
    """Collects tags, addresses and identifiers of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "data"):
                self.addresses.append(value or "")
            if key == "id":
                self.names.append(value or "")


def test_the_page_loads_nothing_and_has_each_name_once(study: Path) -> None:
    text = (study / "report.html").read_text(encoding="utf-8")
    parsed = _Page()
    parsed.feed(text)
    assert parsed.tags.count("svg") == len(FIGURES)
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in parsed.addresses)
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(parsed.names) == len(set(parsed.names))
    assert {address[1:] for address in parsed.addresses if address[0] == "#"} <= set(parsed.names)
    assert "<b>smoa" not in text
    assert "&lt;b&gt;smoa" in text


def test_the_same_numbers_give_the_same_bytes(study: Path, tmp_path: Path) -> None:
    write_report(study.parent, tmp_path / "again", FORMATS)
    files = [f.relative_to(study) for f in sorted(study.rglob("*")) if f.is_file()]
    assert len(files) == 2 + 3 * len(FIGURES) + len(TABLES) + 4
    for file in files:
        assert (tmp_path / "again" / file).read_bytes() == (study / file).read_bytes(), file


def test_figures_are_well_formed_and_contain_their_texts(study: Path) -> None:
    for file in study.glob("figures/*.svg"):
        ET.parse(file)
    assert "trainable parameters" in (study / "figures" / "parameters.svg").read_text()


def test_latex_and_markdown_escape_special_characters() -> None:
    table = Table("t", "50 % of r_1", columns(["a|b", "number"]), (("x & <y>", "1"), ("p|q", "-2")), frozenset({1}))
    text = latex(table)
    assert r"\caption{50 \% of r\_1}" in text
    assert r"x \& \textless{}y\textgreater{} & 1 \\" in text
    assert r"\textbf{p\textbar{}q} & \textbf{-2} \\" in text
    assert r"\begin{tabular}{lr}" in text
    from smoa_lightning.records.page.document import Document

    assert "| **p\\|q** | **-2** |" in markdown(Document("d", (table,)))
    assert "x &amp; &lt;y&gt;" in page(Document("d", (table,)))


def test_names_are_never_markup_or_formulas(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "=1+1", "@SUM(1)", "+cmd|' /C calc'!A0", "-2+A1", "[x](javascript:alert(1))"]
    cells: dict[str, dict[str, Any]] = {
        f"method={name}": {"labels": {"method": name}, "accuracy": 0.4 + 0.03 * n, "parameters": 1000, "rank": 10.0}
        for n, name in enumerate(names)
    }
    make_study(tmp_path, cells, items=60)
    write_report(tmp_path, tmp_path / "report")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "report" / name).read_text()
        assert "<script" not in text
        assert "&lt;script" in text
        assert "](javascript" not in text or name == "report.html"
    for file in (tmp_path / "report" / "figures").glob("*.svg"):
        assert "<script" not in file.read_text()
    for file in (tmp_path / "report" / "tables").glob("*.csv"):
        with file.open(newline="") as stream:
            for cell in (cell for row in csv.reader(stream) for cell in row):
                assert not re.match(r"[=@\t\r]|[-+].*[A-Z!|]", cell), (file.name, cell)


def test_numbers_stay_numbers_in_tables(study: Path) -> None:
    with (study / "tables" / "differences.csv").open(newline="") as stream:
        assert not any(cell.startswith("'") for row in csv.reader(stream) for cell in row)


def test_torch_and_optuna_are_not_needed(study: Path, tmp_path: Path) -> None:
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lightning", "transformers", "peft", "optuna", "datasets"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from smoa_lightning.__main__ import main
sys.exit(main(["report", {str(study.parent)!r}, "--out", {str(tmp_path / "out")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "report.html").read_bytes() == (study / "report.html").read_bytes()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_shows_all_figures_within_the_page(study: Path, tmp_path: Path) -> None:
    """The page at the width of a laptop: all figures have a size, and nothing is wider than the window."""
    probe = """
<script>addEventListener('load', () => {
  const sizes = [...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect())
      .map(r => Math.round(r.width) + 'x' + Math.round(r.height)).join(' ');
  document.body.dataset.found = document.documentElement.scrollWidth + '|' + innerWidth + '|' + sizes + '|'
      + document.querySelectorAll('table tbody tr').length + '|'
      + [...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth + 1).length;
});</script>"""
    file = tmp_path / "page.html"
    file.write_text((study / "report.html").read_text(encoding="utf-8") + probe, encoding="utf-8")
    place = (f"--user-data-dir={tmp_path}", "--window-size=1280,900")
    command = [str(BROWSER), *FLAGS, *place, "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found is not None, done.stderr[-2000:]
    wide, window, sizes, rows, cut = found[1].split("|")
    assert cut == "0"  # no table or figure needs scrolling
    assert int(wide) <= int(window)
    assert len(sizes.split()) == len(FIGURES)
    assert all(int(side) > 100 for size in sizes.split() for side in size.split("x"))
    lines = {f.stem: len(f.read_text().splitlines()) - 1 for f in study.glob("tables/*.csv")}
    assert int(rows) == sum(lines.values()) + lines["cells"]  # the page has two tables of cells


@pytest.mark.parametrize(
    ("part", "facts", "note"),
    [
        ("data", {"source": "embedded", "task": "piqa"}, "The rows of piqa are generated rows of this package:"),
        ("data", {"source": "embedded", "task": "digits"}, None),
        ("data", {"source": "embedded", "task": "phone_book"}, None),
        ("backbone", {"source": "embedded"}, "The base model is the small one of this package:"),
    ],
)
def test_a_report_says_what_is_embedded(tmp_path: Path, part: str, facts: dict[str, str], note: str | None) -> None:
    make_study(tmp_path, {"method=lora": {"labels": {"method": "lora"}, "accuracy": 0.5, "parameters": 10}})
    for file in (tmp_path / "runs").glob("*/record.json"):
        record = json.loads(file.read_text())
        record[part] |= facts
        file.write_text(json.dumps(record))
    text = opening(analyse(read_study(tmp_path)))
    assert ("of this package" in text) == (note is not None)
    assert note is None or note in text

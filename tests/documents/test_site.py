"""The documentation site builds without a warning, its links exist, and it loads nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import smoa_lightning
from smoa_lightning import adapters
from smoa_lightning.ablation import statistics
from smoa_lightning.adapters import tuner
from smoa_lightning.commands import COMMANDS
from smoa_lightning.configuration.settings import groups
from tools.site import flow_chart, settings_page
from tools.site.figures import FIGURES, FOLDER
from tools.site.links import document_faults, site_faults

ROOT = Path(__file__).parents[2]
EXTRA = importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings_handlers") is None
needs_extra = pytest.mark.skipif(EXTRA, reason="needs the extra `docs`: pip install -e '.[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with every warning as an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow  # `make check` builds the site and checks its links
@needs_extra
def test_all_links_and_anchors_of_the_site_exist_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    faults, external = site_faults(site)
    assert not faults
    assert "https://arxiv.org/abs/2605.21147" in external


@pytest.mark.slow
@needs_extra
def test_the_site_has_settings_flow_charts_the_notebook_and_reports_of_studies(site: Path) -> None:
    assert 'id="data.batch_size"' in (site / "reference" / "settings.html").read_text(encoding="utf-8")
    assert 'class="flow-chart"' in (site / "architecture.html").read_text(encoding="utf-8")
    assert "get_peft_model" in (site / "notebooks" / "first_adapter.html").read_text(encoding="utf-8")
    assert (site / "studies" / "reviewers" / "figures" / "forest.svg").is_file()


def test_a_missing_page_an_anchor_and_a_remote_script_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="x"></p><a href="b.html#y"></a><a href="c.html"></a>', encoding="utf-8")
    (tmp_path / "b.html").write_text('<a href="a.html#x"></a><script src="https://cdn.org/x.js"></script>', "utf-8")
    assert site_faults(tmp_path)[0] == [
        "a.html links to b.html#y, and there is no such anchor",
        "a.html links to c.html, which does not exist",
        "b.html loads https://cdn.org/x.js",
    ]


def test_links_of_the_documents_work_on_github() -> None:
    assert document_faults()[0] == []


def test_faults_of_documents_are_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# One thing\n`[x](none.md)` [b](b.md) [c](#one-thing)", encoding="utf-8")
    (tmp_path / "README.md").write_text("[a](docs/a.md#one-thing) [a](docs/a.md#two) [m](mailto:x@y)", encoding="utf-8")
    assert document_faults(tmp_path)[0] == [
        "README.md links to docs/a.md#two, and there is no such heading",
        "docs/a.md links to b.md, which does not exist",
    ]


def test_all_public_names_are_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^::: .*?(\w+)$", text, re.MULTILINE))
    functions = {name for name in statistics.__all__ if name[0].islower()} - {
        "counted",
        "mean_squares",
        "standard_error",
    }
    tools = {"frozen_weight", "linear_shape", "update_shape"}  # of layers of this package
    public = {*smoa_lightning.__all__, *adapters.__all__, *tuner.__all__, *functions} - {"__version__", *tools}
    assert public <= named, public - named


def test_all_commands_and_settings_are_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`{name}`" not in text] == []
    page = settings_page.page()
    keys = [setting.key for group in groups("fit") for setting in group.settings]
    assert [key for key in keys if f'id="{key}"' not in page] == []
    assert {line.count("|") for line in page.splitlines() if line.startswith("|")} == {5}  # four cells in each row


def test_the_navigation_has_the_files_of_the_folder() -> None:
    """Also without the extra."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = re.findall(r"'([^']+\.md)'", str(config["nav"]))
    files = {file.relative_to(ROOT / "docs").as_posix() for file in (ROOT / "docs").rglob("*.md")}
    assert files <= set(listed)
    assert config["theme"]["font"] is False


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_those_of_the_script(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == FIGURES[name](), "run python -m tools.site.figures"


def test_a_flow_chart_has_its_nodes_in_layers_and_long_arrows_between_them() -> None:
    text = 'flowchart TD\n a["one"]\n a --> b --> c\n a --> c\n c["<three>"]'
    chart = flow_chart.parse(text)
    assert chart.texts == {"a": "one", "b": "b", "c": "<three>"}
    assert [sorted(row) for row in flow_chart.layers(chart)] == [["a"], ["a>c>1", "b"], ["c"]]
    figure = flow_chart.figure(text, 0, "a & b")
    assert figure.count("<rect") == 3
    assert figure.count('class="arrow"') == 3
    assert "&lt;three&gt;" in figure


@pytest.mark.parametrize("text", ["graph TD\n a --> b", "flowchart TD\n a -.-> b"])
def test_a_chart_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="chart"):
        flow_chart.parse(text)


@pytest.mark.parametrize("file", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda file: file.name)
def test_a_list_after_a_paragraph_has_an_empty_line_before_it(file: Path) -> None:
    """GitHub shows such a list; the site shows one paragraph with asterisks."""
    text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^(?![ #<>|*-]|\d+\. )\S.*\n[*-] .*", text, re.MULTILINE) == []

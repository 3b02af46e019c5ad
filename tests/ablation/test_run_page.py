"""The page of one run: curves of its event files, the update, sample predictions; unfinished and damaged runs."""

from __future__ import annotations

import json
import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from smoa_lightning.__main__ import main
from smoa_lightning.ablation.run_page.contents import _state, run_document
from smoa_lightning.ablation.run_page.events import Curve, in_steps_done, read_curves
from smoa_lightning.ablation.run_page.figures import MOST_POINTS, finite, running_mean, thinned
from smoa_lightning.records.page.document import Paragraph, Row, Table
from smoa_lightning.records.page.html import page as page_of
from tests.ablation.made_run import LORA, choice_items, embedded_digest, make_run, reply_items
from tests.browser import BROWSER, FLAGS

RIGHT = np.tile([1, 1, 0], 20)
LAYERS = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(
        tmp_path_factory.mktemp("runs") / "one", choice_items(RIGHT), choice_items(np.zeros(60)),
        digest=embedded_digest("piqa"), best={"step": 20, "selection_score": 0.6},
    )  # fmt: skip
    with SummaryWriter(str(folder)) as log:
        for step in range(0, 100, 5):
            log.add_scalar("train/loss", math.exp(-step / 50), step)
            log.add_scalar("train/learning_rate", 0.01 * (1 - step / 100), step)
        for step in (19, 59):  # after 20 and 60 steps
            log.add_scalar("selection/acc", 0.5 + step / 1000, step)
            log.add_scalar("rank/effective_mean", 10 + step, step)
            for layer in LAYERS:
                log.add_scalar(f"rank/effective/{layer}", 10 + step, step)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return text(run)


def tables(folder: Path) -> dict[str, Table]:
    return {table.name: table for table in run_document(folder, "report").tables}


def text(folder: Path) -> str:
    assert main(["report", str(folder)]) == 0
    return (folder / "report" / "run.html").read_text(encoding="utf-8")


def test_page_loads_nothing_and_has_all_sections(page: str) -> None:
    for part in ("loss", "learning_rate", "selection", "layers", "ranks", "scores", "costs", "facts", "layer_ranks"):
        assert f'id="{part}"' in page
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert "acc 0.6667 ± 0.0614 (standard error over rows) on 60 report rows" in page
    assert "better than the base model by 66.67 points" in page
    assert '"signature": "one"'.replace('"', "&#34;") in page


def test_samples_are_right_and_wrong_rows(run: Path) -> None:
    found = tables(run)
    for name, right in (("samples_piqa_0", 0), ("samples_piqa_1", 1)):
        table = found[name]
        rows = [int(row[0]) for row in table.rows]
        assert {int(RIGHT[row]) for row in rows} == {right}
        assert len(rows) == len(set(rows)) == 6
        for row, prompt, choices, said, base in table.rows:
            assert prompt.startswith("Question:")
            (marked,) = [line for line in choices.splitlines() if line.startswith("✓ ")]
            assert (said in marked) == bool(right)
            assert base not in marked
            assert marked.startswith(f"✓ {int(row) % 2}: ")


def test_curves_are_those_of_all_event_files(tmp_path: Path) -> None:
    """A resumed run has two files, and the second one repeats a step."""
    for part, steps in enumerate((range(3), range(2, 5))):
        with SummaryWriter(str(tmp_path), filename_suffix=f".{part}", purge_step=2 if part else None) as log:
            for step in steps:
                log.add_scalar("train/loss", 10 * part + step, step)
    assert read_curves(tmp_path)["train/loss"] == Curve((0, 1, 2, 3, 4), (0.0, 1.0, 12.0, 13.0, 14.0))
    assert read_curves(tmp_path / "nowhere") == {}


def test_the_best_checkpoint_is_at_a_point_of_its_curve(run: Path) -> None:
    """The record counts the steps that were done, and the log numbers them from 0."""
    logged, done = read_curves(run), in_steps_done(read_curves(run))
    assert logged["selection/acc"].steps == (19, 59)
    assert done["selection/acc"].steps == done["rank/effective_mean"].steps == (20, 60)
    assert done["train/loss"].steps[0] == 1
    assert in_steps_done({"report/acc": Curve((0, 20), (0.5, 0.6))})["report/acc"].steps == (0, 20)


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("stopped by Ctrl-C", "The run is not finished: stopped by Ctrl-C. "),
        ("SystemExit: 1", "The run is not finished: stopped by Ctrl-C or a signal. "),
        ("OSError: no space", "its status is 'stopped' (OSError: no space). "),
    ],
)
def test_why_a_run_stopped(reason: str, says: str) -> None:
    assert says in _state({"status": "stopped", "reason": reason})


def test_long_curves_are_thinned_and_smoothed() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    steps, drawn = thinned(Curve(tuple(range(20_000)), tuple(values.tolist())))
    assert len(drawn) == MOST_POINTS
    assert np.mean(drawn) == pytest.approx(values.mean(), abs=1e-12)
    assert steps == sorted(steps)
    assert np.std(running_mean(drawn)) < np.std(drawn) / 3
    assert finite(Curve((1, 2), (math.nan, 3.0))) == Curve((2,), (3.0,))
    assert finite(Curve((1,), (math.inf,))) is None


def test_spectra_of_the_command_rank_are_shown(page: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "two", choice_items(RIGHT))
    layers = [
        {"name": name, "shape": [8, 8], "trainable": 32, "bound": 4, "values": [2.0, 1.0, 0.5, 1e-9],
         "rank": {"effective": 2.6, "stable": 1.3, "numerical": 3}}
        for name in LAYERS
    ]  # fmt: skip
    (folder / "rank.json").write_text(json.dumps([{"layers": layers}]))
    shown = text(folder)
    assert 'id="spectrum"' in shown
    assert "--layers of the command rank sets their number" in shown
    assert tables(folder)["layer_ranks"].rows[0] == (LAYERS[0], "8 x 8", "32", "2.6", "1.3", "3", "4")
    del layers[0]["rank"]["stable"]
    for damaged in ("[{]", json.dumps([{"layers": layers}])):
        (folder / "rank.json").write_text(damaged)
        assert 'id="spectrum"' not in text(folder)
    assert "measures the singular values" in page
    assert "2 layers are measured. They lie at even distances" in page
    assert "rank_monitor.max_layers sets their number" in page


def test_figures_have_the_colours_of_the_theme(page: str) -> None:
    """Text without a colour of the theme cannot be read on a dark page."""
    drawing = page[page.index('aria-label="Training loss') :]
    drawing = drawing[: drawing.index("</svg>")]
    assert "var(--ink, #1a1a1a)" in drawing
    assert "var(--figure-rule, #e2e2e2)" in drawing
    assert "var(--figure-1, #0072b2)" in drawing


@pytest.mark.parametrize("status", ["running", "failed", "stopped"])
def test_an_unfinished_run_has_a_page(status: str, run: Path, tmp_path: Path) -> None:
    folder = make_run(
        tmp_path / status, [], None, status=status, metrics={}, data={"task": "piqa"}, reason="Error: a\nb"
    )
    for file in run.glob("events*"):
        (folder / file.name).write_bytes(file.read_bytes())
    document = run_document(folder, "report")
    assert f"{status}" in page_of(document)
    first = document.blocks[0]
    assert isinstance(first, Paragraph)
    assert f"its status is '{status}' (Error: a b)" in first.text
    assert any(isinstance(block, Row) for block in document.blocks)


def test_a_run_without_events_or_base_or_report(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", choice_items(RIGHT))
    page = text(folder)
    assert "There are no curves" in page
    assert "base model by" not in page
    bare = make_run(tmp_path / "b", [], None, metrics={})
    assert main(["report", str(bare), "--out", str(tmp_path / "elsewhere")]) == 0
    assert "it has no scores of report rows" in (tmp_path / "elsewhere" / "run.html").read_text(encoding="utf-8")


def test_replies_and_names_are_text(tmp_path: Path) -> None:
    items = reply_items([1.0, 2.0, 3.0], [1, 2, 3])
    items[0]["reply"] = "<script>alert(1)</script>"
    folder = make_run(tmp_path / "a", items, items, task="chat", protocol="generation", name="<b>`x`")
    page = text(folder)
    assert "<script" not in page
    assert "<b>" not in page
    (table,) = [table for name, table in tables(folder).items() if name.startswith("samples")]
    assert [row[-2] for row in table.rows] == [items[0]["reply"], *(item["reply"] for item in items[1:])]


def test_folders_that_are_neither_a_study_nor_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run.parent)]) == 2
    assert f"did you mean {run}?" in capsys.readouterr().err
    assert main(["report", str(run.parent / "on")]) == 2
    assert f"did you mean {run}?" in capsys.readouterr().err


def test_damaged_items_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path / "a", choice_items(RIGHT), adapter=LORA)
    (folder / "items.jsonl").write_text("{}\n")
    assert main(["report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(folder / "items.jsonl") in error
    assert not (folder / "report").exists()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [500, 1280])  # Chromium's narrowest window is 500 pixels wide
def test_a_browser_shows_the_page_within_its_window(width: int, page: str, tmp_path: Path) -> None:
    probe = """
<script>addEventListener('load', () => {
  const sizes = [...document.querySelectorAll('figure svg')].map(e => Math.round(e.getBoundingClientRect().width));
  document.body.dataset.found = document.documentElement.scrollWidth + '|' + innerWidth + '|' + sizes.join(' ');
});</script>"""
    file = tmp_path / "page.html"
    file.write_text(page + probe, encoding="utf-8")
    place = (f"--user-data-dir={tmp_path}", f"--window-size={width},900")
    command = [str(BROWSER), *FLAGS, *place, "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found is not None, done.stderr[-2000:]
    wide, window, sizes = found[1].split("|")
    assert int(wide) <= int(window)
    assert len(sizes.split()) == 5
    assert all(300 < int(size) < int(window) for size in sizes.split())

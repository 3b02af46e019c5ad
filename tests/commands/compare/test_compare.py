"""The command `compare`: paired tests against scipy, the right rows, files and page."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from smoa_lightning.__main__ import main
from smoa_lightning.ablation.statistics import holm
from smoa_lightning.commands import compare
from smoa_lightning.common.checksums import read_sealed, write_sealed
from smoa_lightning.records.tables import text_table
from tests.ablation.made_run import LORA, SMOA, choice_items, embedded_digest, make_run, reply_items
from tests.commands.compare.shared import FIRST, SECOND, THIRD, table

RNG = np.random.default_rng(11)

FILES = ["compare.html", "differences.csv", "records.csv", "rows.csv", "settings.csv"]


def test_differences_are_those_of_scipy(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    third = make_run(tmp_path / "c", choice_items(THIRD), digest=embedded_digest("piqa"), adapter=SMOA, seed=5)
    assert main(["compare", *runs, str(third), "--output", str(tmp_path / "out")]) == 0
    lines = table(tmp_path / "out" / "differences.csv", "acc")
    assert [line["run"] for line in lines] == ["smoa-seed0", "smoa-seed5"]
    expected = []
    for line, right in zip(lines, (SECOND, THIRD), strict=True):
        only, other = int((right > FIRST).sum()), int((right < FIRST).sum())
        p = stats.binomtest(only, only + other, 0.5).pvalue
        assert float(line["difference"]) == pytest.approx(right.mean() - FIRST.mean())
        low, high = stats.ttest_rel(right, FIRST).confidence_interval(0.95)
        assert (float(line["low"]), float(line["high"])) == pytest.approx((low, high), abs=0.01)
        assert float(line["standard_error"]) == pytest.approx(stats.sem(right - FIRST))
        assert float(line["p"]) == pytest.approx(p)
        assert (int(line["only_run_right"]), int(line["only_baseline_right"])) == (only, other)
        expected.append(p)
    assert [float(line["p_holm"]) for line in lines] == pytest.approx(holm(expected))
    assert "lora-seed0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "words", "rows"),
    [
        ({}, "The rows of piqa are generated rows", "new rows of the same kind"),
        ({"selection": "best_epoch_on_report"}, "so the scores are too good.", "new rows of the same kind"),
        ({"selection": "trained_rows"}, "capacity. The training rows are scored", "the rows that were trained on"),
        ({"rules": "llm_adapters"}, "Published rules llm_adapters", "new rows of the same kind"),
    ],
)
def test_scores_are_labelled(
    data: dict[str, str], words: str, rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the report of a study and on the page of a run, also if all runs have the same label."""
    folders = []
    for name, adapter, right in (("a[x]", LORA, FIRST), ("b[/y]", SMOA, SECOND)):
        digest = embedded_digest("piqa")
        folder = make_run(tmp_path / name, choice_items(right), digest=digest, adapter=adapter)
        record = read_sealed(folder / "record.json")
        assert record is not None
        write_sealed(folder / "record.json", {**record, "data": {**record["data"], **data}})
        folders.append(str(folder))
    assert main(["compare", *folders, "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    page = (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")
    for text in (" ".join(shown.split()), page):
        assert words in text
        assert f"compare these trained models on {rows}" in text


def test_titles_of_columns_are_no_markup() -> None:
    shown = text_table(["a[x]", "b[/y]"], [["c[z]", "1"]], 1)
    assert shown.splitlines()[0].split() == ["a[x]", "b[/y]"]


def test_rows_that_only_one_gets_right(runs: list[str], tmp_path: Path) -> None:
    from smoa_lightning import embedded

    assert main(["compare", *runs, "--output", str(tmp_path / "out")]) == 0
    lines = table(tmp_path / "out" / "rows.csv")
    assert {int(line["row"]) for line in lines if line["better"] == "smoa"} == set(np.flatnonzero(SECOND > FIRST))
    assert {int(line["row"]) for line in lines if line["better"] == "lora"} == set(np.flatnonzero(FIRST > SECOND))
    raw = embedded.rows("piqa", "validation")
    for line in lines:
        row = int(line["row"])
        assert raw[row]["goal"].strip() in line["prompt"]
        assert line["choices"].splitlines() == [f"{n}: {raw[row][f'sol{n + 1}'].strip()}" for n in (0, 1)]
        winner, loser = ("run_says", "baseline_says") if line["better"] == "smoa" else ("baseline_says", "run_says")
        assert line[winner] == line["gold"] != line[loser]


def test_only_differing_settings_are_shown(runs: list[str], tmp_path: Path) -> None:
    assert main(["compare", *runs, "--output", str(tmp_path / "out")]) == 0
    settings = {line["setting"]: (line["lora"], line["smoa"]) for line in table(tmp_path / "out" / "settings.csv")}
    assert settings == {
        "model.adapter.class_path": (LORA["class_path"], SMOA["class_path"]),
        "model.adapter.init_args.lora_alpha": ("32", "–"),  # `use_dora` and `num_subspaces` have their default values
    }
    records = table(tmp_path / "out" / "records.csv")
    assert [record["trainable parameters"] for record in records] == ["100", "100"]
    assert float(records[0]["report/acc"]) == pytest.approx(FIRST.mean())


def test_base_stands_for_the_base_model_and_for_the_baseline(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "base", runs[0], "--output", str(tmp_path / "one")]) == 0
    assert main(["compare", runs[0], "--baseline", "base", "--output", str(tmp_path / "two")]) == 0
    one, two = (table(tmp_path / name / "differences.csv", "acc") for name in ("one", "two"))
    assert one == two
    assert (one[0]["baseline"], float(one[0]["baseline_mean"]), float(one[0]["mean"])) == (
        "base model", 0.0, pytest.approx(FIRST.mean()),
    )  # fmt: skip
    assert "95 % interval" in capsys.readouterr().out


def test_files_and_page(runs: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["compare", *runs, "base", "--output", str(out)]) == 0
    assert sorted(file.name for file in out.iterdir()) == FILES
    text = (out / "compare.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!#)', text)
    assert "prefers-color-scheme: dark" in text
    assert "<svg" in text


class ClosedPipe(io.StringIO):
    """The output of ``compare ... | head`` after head has ended."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_closed_pipe_leaves_the_files(runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    with pytest.raises(BrokenPipeError):
        compare.main([*runs, "--output", str(tmp_path / "out")])
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == FILES


@pytest.mark.parametrize("kind", ["script", "formula"])
def test_texts_of_rows_are_neither_html_nor_formulas(kind: str, tmp_path: Path) -> None:
    bad = {"script": "<script>alert(1)</script>", "formula": "=HYPERLINK(1)"}[kind]
    first, second = reply_items([3.0, 4.0], [2, 2]), reply_items([5.0, 4.5], [2, 2])
    first[0]["reply"] = first[1]["reference"] = bad
    runs = [
        make_run(tmp_path / name, items, task="chat", protocol="generation", adapter=adapter)
        for name, items, adapter in (("a", first, LORA), ("b", second, SMOA))
    ]
    assert main(["compare", *map(str, runs), "--output", str(tmp_path / "out")]) == 0
    assert "<script" not in (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")
    assert all(cell[:1] != "=" for line in table(tmp_path / "out" / "rows.csv") for cell in line.values())


def test_replies_are_compared_by_perplexity_and_by_their_largest_differences(tmp_path: Path) -> None:
    tokens = RNG.integers(2, 20, 60)
    nll = [tokens * RNG.gamma(4, 0.25, 60) for _ in range(2)]
    runs = [
        make_run(
            tmp_path / name, reply_items(each, tokens.tolist()), task="chat", protocol="generation", adapter=adapter
        )
        for name, each, adapter in (("a", nll[0].tolist(), LORA), ("b", nll[1].tolist(), SMOA))
    ]
    assert main(["compare", *map(str, runs), "--output", str(tmp_path / "out")]) == 0
    lines = {line["metric"]: line for line in table(tmp_path / "out" / "differences.csv")}
    values = [np.exp(each.sum() / tokens.sum()) for each in nll]
    assert float(lines["perplexity"]["difference"]) == pytest.approx(values[1] - values[0])
    expected = stats.ttest_rel(nll[1] / tokens, nll[0] / tokens)
    assert float(lines["nll"]["p"]) == pytest.approx(expected.pvalue)
    assert lines["bleu"]["verdict"] == "not tested"
    better = [int(line["row"]) for line in table(tmp_path / "out" / "rows.csv") if line["better"] == "smoa"]
    gain = (nll[0] - nll[1]) / tokens
    assert better == np.argsort(-gain)[: len(better)].tolist()
    assert len(better) == min(20, int((gain > 0).sum()))


def test_texts_are_left_out_if_the_data_has_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        make_run(tmp_path / "a", choice_items(FIRST)),
        make_run(tmp_path / "b", choice_items(SECOND), adapter=SMOA),
    ]
    assert main(["compare", *map(str, runs), "--output", str(tmp_path / "out")]) == 0
    assert "has other rows now" in capsys.readouterr().out
    lines = table(tmp_path / "out" / "rows.csv")
    assert {line["prompt"] for line in lines} == {""}
    assert {line["gold"] for line in lines} <= {"0", "1"}


def test_torch_is_not_needed(runs: list[str]) -> None:
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lightning", "transformers", "peft", "optuna", "datasets"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from smoa_lightning.__main__ import main
sys.exit(main(["compare", *{json.dumps(runs)}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fitted_run_is_compared_and_shown(tiny_arguments: list[str], tmp_path: Path) -> None:
    """A real run: the scores are those which fit has written."""
    run = tmp_path / "run"
    flags = ["--trainer.max_steps", "2", "--trainer.log_every_n_steps", "1", "--rank_monitor.max_layers", "2"]
    assert main(["fit", *tiny_arguments, *flags, "--run.folder", str(run)]) == 0
    assert main(["compare", "base", str(run), "--output", str(tmp_path / "out")]) == 0
    metrics = json.loads((run / "record.json").read_text())["metrics"]
    lines = {line["metric"]: line for line in table(tmp_path / "out" / "differences.csv")}
    for name in ("acc", "acc_norm", "acc_token", "nll"):
        expected = metrics[f"report/{name}"] - metrics[f"base/{name}"]
        assert float(lines[name]["difference"]) == pytest.approx(expected, abs=1e-6)
    assert float(lines["acc"]["mean"]) == pytest.approx(metrics["report/acc"])
    assert main(["report", str(run)]) == 0
    page = (run / "report" / "run.html").read_text(encoding="utf-8")
    for part in ("loss", "learning_rate", "layers", "samples_piqa_0", "costs", "data", "facts"):
        assert f'id="{part}"' in page
    assert f"{metrics['report/acc']:.4f}" in page


def test_ranks_and_costs_that_were_not_measured_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"report/acc": 0.5, "rank/effective_mean": -1.0, "cost/step_seconds": -1.0}
    runs = [
        str(make_run(tmp_path / name, choice_items(right), adapter=adapter, metrics=metrics))
        for name, right, adapter in (("a", FIRST, LORA), ("b", SECOND, SMOA))
    ]
    assert main(["compare", *runs, "--output", str(tmp_path / "out")]) == 0
    lines = table(tmp_path / "out" / "records.csv")
    names = ("effective rank", "step, s", "rank/effective_mean", "cost/step_seconds")
    assert {line[name] for line in lines for name in names} == {""}
    facts = [
        line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("effective rank", "step, s"))
    ]
    assert [words for words in facts if "-1" in words] == []


def test_labels_are_short_and_the_folders_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two versions of one name, and a long name: no label is cut."""
    places = [("lora/version_0", LORA), ("lora/version_1", LORA), ("smoa/version_0", SMOA)]
    runs = [make_run(tmp_path / place, choice_items(right), adapter=adapter)
            for (place, adapter), right in zip(places, (FIRST, SECOND, THIRD), strict=True)]  # fmt: skip
    assert main(["compare", *map(str, runs)]) == 0
    shown = capsys.readouterr().out
    labels = ("lora version_0", "lora version_1", "smoa")
    for label, run in zip(labels, runs, strict=True):
        assert any(line.split() == [*label.split(), str(run)] for line in shown.splitlines())
    assert "…" not in shown


def test_sizes_that_differ_and_the_better_side_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A low nll is better; a method without a rank has an empty one."""
    items = [[{**item, "nll": nll * (1 + number / 100), "tokens": 1} for number, item in enumerate(choice_items(FIRST))]
             for nll in (1.0, 2.0)]  # fmt: skip
    runs = []
    for name, own, size, rank in (("low", items[0], 1000, 8), ("high", items[1], 2000, 0)):
        metrics = {"report/acc": 0.5, "report/nll": 1.0, "parameters/trainable": size}
        facts = {"strategy": name, "rank": rank}
        runs.append(str(make_run(tmp_path / name, own, metrics=metrics, hyperparameters=facts)))
    assert main(["compare", *runs, "--metric", "nll", "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "Sizes differ: 1,000 parameters in low, 2,000 in high. So a difference between these runs" in shown
    (line,) = table(tmp_path / "out" / "differences.csv", "nll")
    assert (line["verdict"], float(line["difference"]) > 0) == ("worse", True)
    assert [line["rank"] for line in table(tmp_path / "out" / "records.csv")] == ["8", ""]

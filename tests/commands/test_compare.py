"""The command `compare`: paired tests against scipy, the right rows, files, and refusals of one sentence."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from smoa_lightning.__main__ import main
from smoa_lightning.ablation.comparison.sides import read_sides
from smoa_lightning.ablation.statistics import holm
from smoa_lightning.commands import compare
from tests.ablation.made_run import LORA, SMOA, choice_items, embedded_digest, make_run, reply_items

FILES = ["compare.html", "differences.csv", "records.csv", "rows.csv", "settings.csv"]
RNG = np.random.default_rng(11)
ROWS = 120
FIRST, SECOND, THIRD = (RNG.integers(0, 2, ROWS) for _ in range(3))
BASE = np.zeros(ROWS)


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two methods on the embedded PIQA rows, whose texts can be read."""
    digest = embedded_digest("piqa")
    base = choice_items(BASE)
    first = make_run(tmp_path / "a", choice_items(FIRST), base, digest=digest)
    second = make_run(tmp_path / "b", choice_items(SECOND), base, digest=digest, adapter=SMOA)
    return [str(first), str(second)]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the command, which must refuse with one sentence, and return the sentence."""
    assert main(["compare", *words]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("smoa_lightning: ")
    assert error.count("\n") == 1
    return error


def test_differences_are_those_of_scipy(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    third = make_run(tmp_path / "c", choice_items(THIRD), digest=embedded_digest("piqa"), adapter=SMOA, seed=5)
    assert main(["compare", *runs, str(third), "--output", str(tmp_path / "out")]) == 0
    lines = table(tmp_path / "out" / "differences.csv")
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
    one, two = (table(tmp_path / name / "differences.csv") for name in ("one", "two"))
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


def test_seeds_are_grouped_and_tested_over_seeds_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without effects of items the crossed test is the t-test over seeds, which scipy has."""
    right = {"a": RNG.random((4, 400)) < 0.5, "b": RNG.random((4, 400)) < 0.6}
    runs = [
        str(make_run(tmp_path / f"{name}{seed}", choice_items(right[name][seed]), seed=seed, adapter=adapter))
        for name, adapter in (("a", LORA), ("b", SMOA))
        for seed in range(4)
    ]
    assert main(["compare", *runs, "--group", "seed", "--output", str(tmp_path / "out")]) == 0
    (line,) = table(tmp_path / "out" / "differences.csv")
    assert (line["run"], line["baseline"], line["seeds"], line["rows"]) == ("smoa", "lora", "4", "400")
    differences = right["b"].mean(axis=1) - right["a"].mean(axis=1)
    assert float(line["difference"]) == pytest.approx(differences.mean())
    assert float(line["standard_error"]) >= stats.sem(differences) * 0.99
    assert len(table(tmp_path / "out" / "records.csv")) == 8
    assert "in all seeds" in capsys.readouterr().out
    assert "seed_everything" not in (tmp_path / "out" / "settings.csv").read_text(encoding="utf-8")
    lone = refused(capsys, *runs[:4], "--group", "seed")
    assert "differ only in their seed" in lone
    other = refused(capsys, *runs[:1], *runs[5:], "--group", "seed")
    assert "the same seeds" in other


def seeds_of(tmp_path: Path, name: str, right: dict[int, Any], adapter: Any, **record: Any) -> list[str]:
    return [
        str(make_run(tmp_path / name / f"seed{seed}", choice_items(each), seed=seed, adapter=adapter, **record))
        for seed, each in right.items()
    ]


def test_only_shared_seeds_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seed 3 of one method is all wrong and seed 0 of the other all right: both must not count anywhere."""
    right = {seed: RNG.integers(0, 2, (3, ROWS)) for seed in (1, 2)}
    smoa = seeds_of(tmp_path, "smoa", {0: np.ones(ROWS), 1: right[1][0], 2: right[2][0]}, SMOA)
    lora = seeds_of(tmp_path, "lora", {1: right[1][1], 2: right[2][1], 3: BASE}, LORA)
    assert main(["compare", *lora, *smoa, "--group", "seed", "--output", str(tmp_path / "out")]) == 0
    unequal = capsys.readouterr().out
    assert "left out: seed 3 of lora, seed 0 of smoa." in unequal
    assert "left out: seed 3 of lora, seed 0 of smoa." in (tmp_path / "out" / "compare.html").read_text("utf-8")
    (line,) = table(tmp_path / "out" / "differences.csv")
    means = [np.mean([right[seed][side] for seed in (1, 2)]) for side in (0, 1)]
    assert [float(line[name]) for name in ("mean", "baseline_mean")] == pytest.approx(means)
    assert float(line["difference"]) == pytest.approx(means[0] - means[1])
    assert main(["compare", *lora[:2], *smoa[1:], "--group", "seed", "--output", str(tmp_path / "equal")]) == 0
    assert "left out:" not in capsys.readouterr().out
    for name in ("differences.csv", "rows.csv", "records.csv"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "equal" / name).read_text()


def test_each_group_is_compared_on_the_seeds_that_it_shares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = {seed: RNG.integers(0, 2, (3, ROWS)) for seed in range(3)}
    lora = seeds_of(tmp_path, "lora", {seed: right[seed][0] for seed in range(3)}, LORA)
    smoa = seeds_of(tmp_path, "smoa", {seed: right[seed][1] for seed in range(3)}, SMOA)
    wide = {**LORA, "init_args": {**LORA["init_args"], "r": 8}}
    (lone,) = seeds_of(tmp_path, "wide", {2: right[2][2]}, wide)
    assert main(["compare", *lora, *smoa, lone, "--group", "seed", "--output", str(tmp_path / "out")]) == 0
    full, one = table(tmp_path / "out" / "differences.csv")
    assert (full["seeds"], one["seeds"], one["test"]) == ("3", "1", "exact McNemar")
    assert float(full["baseline_mean"]) == pytest.approx(np.mean([right[seed][0] for seed in range(3)]))
    assert (float(one["mean"]), float(one["baseline_mean"])) == pytest.approx((right[2][2].mean(), right[2][0].mean()))
    assert f"{one['run']} is compared with {one['baseline']} on seed 2 only." in capsys.readouterr().out
    assert one["baseline"].endswith("lora (3 seeds)")  # its name is that of `wide`, so the folders are the labels


@pytest.mark.parametrize("name", ["lora-seed{}-hub", "my_lora_seed{}", "Lora seed={}"])
def test_the_label_of_a_group_has_no_seed(name: str, tmp_path: Path) -> None:
    groups = [
        [make_run(tmp_path / f"{adapter['class_path'][:3]}{seed}", choice_items(FIRST), seed=seed, adapter=adapter,
                  name=name.format(seed).replace("ora", each)) for seed in (0, 1)]
        for adapter, each in ((LORA, "ora"), (SMOA, "ight"))
    ]  # fmt: skip
    runs = [str(run) for group in groups for run in group]
    labels = [side.label for side in read_sides(runs, None, by_seed=True)]
    assert not re.search(r"seed|\d", " ".join(labels))
    assert len(set(labels)) == 2


def test_runs_on_fewer_rows_are_compared_on_the_common_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        make_run(tmp_path / "a", choice_items(FIRST)),
        make_run(tmp_path / "b", choice_items(SECOND[:50]), adapter=SMOA),
    ]
    assert main(["compare", *map(str, runs), "--output", str(tmp_path / "out")]) == 0
    assert "the 50 rows that all of them share" in capsys.readouterr().out
    (line,) = table(tmp_path / "out" / "differences.csv")
    assert float(line["baseline_mean"]) == pytest.approx(FIRST[:50].mean())
    assert float(line["difference"]) == pytest.approx(SECOND[:50].mean() - FIRST[:50].mean())


def test_several_tasks_have_a_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = ("hellaswag", "piqa")  # with different primary metrics
    runs = []
    for name, adapter in (("a", LORA), ("b", SMOA)):
        right = {task: RNG.integers(0, 2, 80) for task in tasks}
        items = [item for task in tasks for item in choice_items(right[task], task)]
        each = {
            task: {"task_version": 1, "protocol": "likelihood", "source": "embedded",
                   "splits": {"validation": {"sha256": task}}}
            for task in tasks
        }  # fmt: skip
        metrics = {f"report/{task}/acc": float(right[task].mean()) for task in tasks}
        metrics["report/acc"] = sum(metrics.values()) / 2
        metrics |= {f"report/{place}nll": 1.5 for place in ("", "hellaswag/", "piqa/")}
        data = {"task": "mixture", "tasks": each, "trained": list(tasks), "reported": list(tasks)}
        runs.append(make_run(tmp_path / name, items, adapter=adapter, data=data, metrics=metrics))
    assert main(["compare", *map(str, runs), "--output", str(tmp_path / "out")]) == 0
    assert " acc is " not in (first := capsys.readouterr().out.splitlines()[0])  # nll of choices has no test
    assert "adjusted p = " in first
    lines = {line["task"]: line for line in table(tmp_path / "out" / "differences.csv") if line["metric"] == "acc"}
    assert list(lines) == ["hellaswag", "piqa", "mean of 2 tasks"]
    parts = [float(lines[task]["difference"]) for task in tasks]
    errors = [float(lines[task]["standard_error"]) for task in tasks]
    mean = lines["mean of 2 tasks"]
    assert float(mean["difference"]) == pytest.approx(sum(parts) / 2)
    assert float(mean["standard_error"]) == pytest.approx(np.hypot(*errors) / 2, rel=0.02)  # Bonett and Price


def _other(tmp_path: Path, **changes: Any) -> str:
    return str(make_run(tmp_path / "other", choice_items(SECOND), adapter=SMOA, **changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "boolq"}, ["piqa", "boolq", "different tasks"]),
        ({"digest": "f" * 64}, ["different rows", "dddddddddddd", "ffffffffffff"]),
        ({"digest": None}, ["no digest"]),
        ({"protocol": "generation"}, ["likelihood", "generation"]),
        ({"status": "running"}, ["not finished", "'running'"]),
        ({"metrics": {}}, ["no scores of report rows"]),
    ],
)
def test_runs_that_cannot_be_compared(
    changes: dict[str, Any], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make_run(tmp_path / "a", choice_items(FIRST))
    error = refused(capsys, str(first), _other(tmp_path, **changes), "--output", str(tmp_path / "out"))
    for word in words:
        assert word in error
    assert not (tmp_path / "out").exists()


def test_folders_and_arguments_that_are_refused(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = runs[0]
    assert "named twice" in refused(capsys, one, one)
    assert "named twice" in refused(capsys, one, f"{tmp_path}/b/../a")
    shutil.copytree(one, tmp_path / "copy")
    assert "is a copy of" in refused(capsys, one, str(tmp_path / "copy"))
    assert "compare needs two runs" in refused(capsys, one)
    assert "the folder of a run" in refused(capsys, "base")
    assert f"did you mean {one}?" in refused(capsys, one + "x", runs[1])
    assert f"did you mean {tmp_path / 'a'}?" in refused(capsys, str(tmp_path), one)
    assert "did you mean acc?" in refused(capsys, *runs, "--metric", "ac")
    assert f"did you mean {one}?" in refused(capsys, *runs, "--baseline", one + "1")
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "out"):
        sentence = f"--output {place}: {tmp_path / 'file'} is a file and not a folder; name a folder"
        assert sentence in refused(capsys, *runs, "--output", str(place))
        assert main(["report", one, "--out", str(place)]) == 2
        assert "report: --out" in capsys.readouterr().err
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")
    assert "is a study, not a run" in refused(capsys, one, str(tmp_path / "study"))
    bare = make_run(tmp_path / "bare", choice_items(FIRST), adapter=SMOA, seed=9)
    assert "run.score_base was false" in refused(capsys, str(bare), "base")


@pytest.mark.parametrize("fault", ["changed", "missing", "no json"])
def test_damaged_items_are_one_sentence(
    fault: str, runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "b" / "items.jsonl"
    if fault == "missing":
        file.unlink()
    else:
        file.write_text(file.read_text().replace("1", "0", 1) if fault == "changed" else "{")
    assert str(file) in refused(capsys, *runs)


@pytest.mark.parametrize("kind", ["metric", "items"])
def test_numbers_that_are_not_finite_are_named_and_not_tested(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Metrics of a reply task: nll of a run is NaN, or that of a row is; the other metrics are tested."""
    tokens = [2] * 30
    items = [reply_items((RNG.random(30) + each).tolist(), tokens) for each in range(2)]
    metrics = {"report/nll": 1.0, "report/perplexity": 2.7, "report/rouge_l": 0.5, "cost/step_seconds": float("inf")}
    if kind == "metric":
        bad = metrics | {"report/nll": float("nan"), "report/perplexity": float("inf")}
    else:
        bad, items[1][3]["nll"] = metrics, float("nan")
    runs = [
        make_run(tmp_path / name, each, each, task="chat", protocol="generation", adapter=adapter, metrics=own)
        for name, each, adapter, own in (("a", items[0], LORA, metrics), ("b", items[1], SMOA, bad))
    ]
    assert main(["compare", *map(str, runs), "--output", str(tmp_path / "out")]) == 0
    lines = {line["metric"]: line for line in table(tmp_path / "out" / "differences.csv")}
    assert {lines[name]["verdict"] for name in ("nll", "perplexity")} == {"not tested"}
    out = capsys.readouterr().out
    for page in (out, (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")):
        if kind == "metric":
            assert f"The metric nll of {runs[1]} is nan and not a finite number, so it is not tested." in page
        else:
            assert f"In {runs[1] / 'items.jsonl'}, 1 row of chat has a log-likelihood that is not finite: 3." in page
    assert main(["report", str(runs[1])]) == 0
    page = (runs[1] / "report" / "run.html").read_text(encoding="utf-8")
    assert "not a finite number" in page if kind == "metric" else "is not finite: 3." in page


def test_log_likelihoods_that_are_not_finite_are_not_shown(tmp_path: Path) -> None:
    items = choice_items(FIRST)
    for item in items:
        item["log_likelihood"][1] = float("nan")
    run = make_run(tmp_path / "a", items, choice_items(BASE), digest=embedded_digest("piqa"))
    assert main(["report", str(run)]) == 0
    page = (run / "report" / "run.html").read_text(encoding="utf-8")
    assert "120 rows of piqa have log-likelihoods that are not finite: 0, 1, 2, 3, 4 and others." in page
    assert "(nan)" not in page
    assert "better than the base model" in page


def test_numbers_of_rows_are_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Groups count rows as single runs do, and one row is not "1 rows"."""
    right = [np.tile([1, 0, 1, 0], 10), np.tile([1, 1, 1, 0], 10)]
    runs = [
        str(make_run(tmp_path / f"{name}{seed}", choice_items(right[name == "b"]), seed=seed, adapter=adapter))
        for name, adapter in (("a", LORA), ("b", SMOA))
        for seed in range(3)
    ]
    assert main(["compare", *runs, "--group", "seed"]) == 0
    out = capsys.readouterr().out
    assert "3 seeds, 40 rows" in out
    assert "item" not in out
    one, two = (
        make_run(tmp_path / name, items, task="chat", protocol="generation", adapter=adapter)
        for name, items, adapter in (
            ("one", reply_items([1.0], [2]), LORA),
            ("two", reply_items([1.5, 2.0], [2, 2]), SMOA),
        )
    )
    assert main(["compare", str(one), str(two)]) == 0
    out = capsys.readouterr().out
    assert "All numbers are for the only row that all of them share." in out
    assert "1 report row." in out
    assert "1 rows" not in out


NO_TASK = {"splits": {}, "source": "embedded"}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"config": None}, "'config' is no object"),
        ({"config": {"model": {}}}, "'config.data' is no object"),
        ({"data": []}, "'data' is no object"),
        ({"data": NO_TASK}, "'data' has no 'task'"),
        ({"data": {"task": "piqa"}}, "'data' has no 'source'"),
        ({"metrics": None}, "'metrics' is no object"),
        ({"metrics": {"report/acc": "0.5"}}, "the metric 'report/acc' is '0.5' and not a number"),
        ({"hyperparameters": "r4"}, "'hyperparameters' is no object"),
    ],
)
def test_a_damaged_record_is_one_sentence(
    changes: dict[str, Any], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = make_run(tmp_path / "a", choice_items(FIRST)), _other(tmp_path, **changes)
    expected = f"smoa_lightning: {other}/record.json is damaged ({fault}): restore the file\n"
    assert refused(capsys, str(first), other) == expected
    assert main(["report", other]) == 2
    assert capsys.readouterr().err == expected


def test_empty_and_foreign_items_are_damaged(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are not rows that runs do not share."""
    for name, items, fault in (
        ("empty", [], "it has no row of 'piqa'"),
        ("foreign", choice_items(SECOND, "boolq"), "it has rows of 'boolq'"),
        ("short", choice_items(SECOND[:50]), "it has 50 rows of 'piqa' and not 120"),
    ):
        metrics = {"report/acc": 0.5, "report/num_items": 120}
        other = make_run(tmp_path / name, items, adapter=SMOA, digest=embedded_digest("piqa"), metrics=metrics)
        assert refused(capsys, runs[0], str(other)) == (
            f"smoa_lightning: {other / 'items.jsonl'} is damaged ({fault}): restore the file\n"
        )


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

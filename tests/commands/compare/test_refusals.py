"""What `compare` refuses or leaves untested, in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smoa_lightning.__main__ import main
from tests.ablation.made_run import LORA, SMOA, choice_items, embedded_digest, make_run, reply_items
from tests.commands.compare.shared import BASE, FIRST, SECOND, refused, table

RNG = np.random.default_rng(11)


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
    assert main(["report", one, "--figures", "pdf"]) == 2
    assert "--figures is for studies" in capsys.readouterr().err
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


@pytest.mark.filterwarnings("error")  # nothing of numpy beside the sentence
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

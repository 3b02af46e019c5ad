"""`compare` of several seeds, of fewer rows and of several tasks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from smoa_lightning.__main__ import main
from smoa_lightning.ablation.comparison.sides import read_sides
from smoa_lightning.ablation.statistics import accuracy_difference, crossed_difference
from smoa_lightning.common.checksums import read_sealed, write_sealed
from tests.ablation.made_run import LORA, SMOA, choice_items, make_run, reply_items
from tests.commands.compare.shared import BASE, FIRST, ROWS, SECOND, refused, table

RNG = np.random.default_rng(11)


def test_seeds_are_grouped_and_tested_over_seeds_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without effects of items the crossed test is the t-test over seeds, which scipy has."""
    right = {"a": RNG.random((4, 400)) < 0.5, "b": RNG.random((4, 400)) < 0.6}
    runs = [
        str(make_run(tmp_path / f"{name}{seed}", choice_items(right[name][seed]), seed=seed, adapter=adapter))
        for name, adapter in (("a", LORA), ("b", SMOA))
        for seed in range(4)
    ]
    assert main(["compare", *runs, "--group", "seed", "--output", str(tmp_path / "out")]) == 0
    (line,) = table(tmp_path / "out" / "differences.csv", "acc")
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
    (line,) = table(tmp_path / "out" / "differences.csv", "acc")
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
    full, one = table(tmp_path / "out" / "differences.csv", "acc")
    assert (full["seeds"], one["seeds"], one["test"]) == ("3", "1", "exact McNemar")
    assert float(full["baseline_mean"]) == pytest.approx(np.mean([right[seed][0] for seed in range(3)]))
    assert (float(one["mean"]), float(one["baseline_mean"])) == pytest.approx((right[2][2].mean(), right[2][0].mean()))
    assert f"{one['run']} is compared with {one['baseline']} on seed 2 only." in capsys.readouterr().out
    assert one["baseline"].endswith("lora (3 seeds)")  # its name is that of `wide`, so the folders are in the labels


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
    (line,) = table(tmp_path / "out" / "differences.csv", "acc")
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


def test_groups_of_rows_are_the_unit_of_all_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def items(right: Any) -> list[dict[str, Any]]:
        return [item | {"group": item["row"] // 4 * 4} for item in choice_items(right)]

    right = {"a": RNG.integers(0, 2, (3, ROWS)), "b": RNG.integers(0, 2, (3, ROWS))}
    runs = [
        str(make_run(tmp_path / f"{name}{seed}", items(right[name][seed]), seed=seed, adapter=adapter))
        for name, adapter in (("a", LORA), ("b", SMOA))
        for seed in range(3)
    ]
    groups = [row // 4 for row in range(ROWS)]
    assert main(["compare", runs[0], runs[3], "--output", str(tmp_path / "two")]) == 0
    (line,) = table(tmp_path / "two" / "differences.csv", "acc")
    expected = accuracy_difference(right["b"][0], right["a"][0], groups=groups)
    assert (line["test"], line["rows"], line["groups"]) == ("paired t over groups of rows", "120", "30")
    assert float(line["p"]) == pytest.approx(expected.p)
    assert float(line["standard_error"]) == pytest.approx(expected.standard_error)
    assert int(line["only_run_right"]) == int((right["b"][0] > right["a"][0]).sum())
    assert "120 rows in 30 groups" in capsys.readouterr().out
    assert main(["compare", *runs, "--group", "seed", "--output", str(tmp_path / "out")]) == 0
    (line,) = table(tmp_path / "out" / "differences.csv", "acc")
    crossed = crossed_difference(right["b"], right["a"], groups=groups)
    assert (line["test"], line["groups"]) == ("paired t over seeds and groups of rows", "30")
    assert (float(line["p"]), float(line["low"])) == pytest.approx((crossed.p, crossed.low))


def test_a_metric_that_an_old_record_lacks_comes_from_its_items(tmp_path: Path) -> None:
    """Records of earlier versions have no `expected_acc`, but their items have the log-likelihoods."""
    runs = [str(make_run(tmp_path / name, choice_items(RNG.integers(0, 2, ROWS)), adapter=a))
            for name, a in (("a", LORA), ("b", SMOA))]  # fmt: skip
    assert main(["compare", *runs, "--metric", "expected_acc", "--output", str(tmp_path / "out")]) == 0
    (line,) = table(tmp_path / "out" / "differences.csv", "expected_acc")
    means = []
    for run in runs:
        lines = [json.loads(text) for text in (Path(run) / "items.jsonl").read_text().splitlines()]
        means.append(np.mean([softmax(item["log_likelihood"])[item["label"]] for item in lines]))
    assert (float(line["baseline_mean"]), float(line["mean"])) == pytest.approx(tuple(means))
    assert line["test"] == "paired t over rows"


@pytest.mark.parametrize("fewshot", [0, 2])
def test_the_base_model_has_a_score_for_each_seed_that_chooses_its_prompts(fewshot: int, tmp_path: Path) -> None:
    right = {seed: RNG.integers(0, 2, (2, ROWS)) for seed in (0, 1, 2)}
    runs = []
    for seed, (base, trained) in right.items():
        run = make_run(tmp_path / f"seed{seed}", choice_items(trained), choice_items(base), seed=seed)
        record = read_sealed(run / "record.json")
        assert record is not None
        record["config"]["data"] |= {"num_fewshot": fewshot, "seed": seed}
        write_sealed(run / "record.json", record)
        runs.append(str(run))
    assert main(["compare", "base", *runs, "--group", "seed", "--output", str(tmp_path / "out")]) == 0
    (line,) = table(tmp_path / "out" / "differences.csv", "acc")
    bases = [right[seed if fewshot else 0][0].mean() for seed in right]
    assert float(line["baseline_mean"]) == pytest.approx(np.mean(bases))
    trained = [right[seed][1].mean() for seed in right]
    assert float(line["difference"]) == pytest.approx(np.mean(trained) - np.mean(bases))


@pytest.mark.parametrize("scored", [(0, 1, 2), (0, 2), (1,)], ids=str)
def test_the_base_model_has_a_score_for_each_seed_that_draws_its_head(scored: tuple[int, ...], tmp_path: Path) -> None:
    right = {seed: RNG.integers(0, 2, (2, ROWS)) for seed in (0, 1, 2)}
    runs = []
    for seed, (base, trained) in right.items():
        known = choice_items(base) if seed in scored else None
        run = make_run(tmp_path / f"seed{seed}", choice_items(trained), known, seed=seed)
        record = read_sealed(run / "record.json")
        assert record is not None
        record["config"]["model"] = (record["config"].get("model") or {}) | {"adapter_seed": seed}
        record["data"]["protocol"] = "classification"
        write_sealed(run / "record.json", record)
        runs.append(str(run))
    assert main(["compare", "base", *runs, "--group", "seed", "--output", str(tmp_path / "out")]) == 0
    (line,) = table(tmp_path / "out" / "differences.csv", "acc")
    assert float(line["baseline_mean"]) == pytest.approx(np.mean([right[seed][0].mean() for seed in scored]))

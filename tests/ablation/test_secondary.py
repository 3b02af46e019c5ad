"""Secondary metrics of a study: read from its file, computed from the items, and reported as families of their own."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from smoa_lightning.ablation.report.analysis import analyse
from smoa_lightning.ablation.report.folder import BaseModelScore, Scored, mean_over_seeds, read_study
from smoa_lightning.ablation.report.item_file import BASE, ITEM_FILE
from smoa_lightning.ablation.report.paired_cells import SeedPools
from smoa_lightning.ablation.report.secondary import sharpness
from smoa_lightning.ablation.statistics import corrected, crossed_difference, holm, pooled_for_differences
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.ablation.study.study_compatibility import check_folder, describe_study
from smoa_lightning.commands.report import write_report
from smoa_lightning.common.errors import UserError

from .made_study import CELLS, make_study

BASELINE, OTHERS = "method=lora", ("method=better", "method=same")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A study of an earlier version whose records have no `expected_acc`, and its answers and expected accuracies."""
    folder = tmp_path_factory.mktemp("study")
    right = make_study(folder, CELLS, items=60)
    described = json.loads((folder / "study.json").read_text()) | {"secondary": ["expected_acc", "nll"]}
    described |= {"margin": 2.0, "secondary_margins": {"nll": 0.5}}
    (folder / "study.json").write_text(json.dumps(described))
    source, expected = np.random.default_rng(4), {name: np.zeros((3, 60)) for name in CELLS}
    for name in CELLS:
        for seed in range(3):
            file = folder / "runs" / f"{name},seed={seed}" / "items.jsonl"
            items = [json.loads(line) for line in file.read_text().splitlines()]
            for item in items:
                gain = (2 * right[name][seed, item["row"]] - 1) * source.uniform(0.1, 2)
                item |= {"log_likelihood": [-3.0, -3.0 + gain], "nll": 3.0 - gain, "tokens": 2}
                expected[name][seed, item["row"]] = softmax([-3.0, -3.0 + gain])[1]
            file.write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder, right, expected


def test_a_secondary_metric_that_is_not_finite_or_not_measured_is_named(tmp_path: Path) -> None:
    """It costs the tables of this metric, and nothing else."""
    make_study(tmp_path, CELLS)
    described = json.loads((tmp_path / "study.json").read_text())
    plan = {"cost": "general_nll", "at": "acc", "along": "method", "share": 0.9, "margin": None}
    described |= {"secondary": ["general_perplexity", "general_nll"], "trade_off": plan}
    (tmp_path / "study.json").write_text(json.dumps(described))
    for file in (tmp_path / "runs").glob("*/record.json"):
        record = json.loads(file.read_text())
        of_same = file.parent.name.startswith("method=same")
        record["metrics"]["report/general_perplexity"] = float("inf") if of_same else 90.0
        file.write_text(json.dumps(record))
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "3 runs of 9 without a finite general_perplexity, such as method=same,seed=0 (inf): left out" in text
    assert "9 runs of 9 without a finite general_nll, such as method=lora,seed=0: left out" in text
    assert "There is no trade-off of general_nll at equal acc: no finished run has both." in text
    analysis = analyse(read_study(tmp_path))
    assert len(analysis.comparisons) == 2
    assert [c.cell for c in analysis.secondary["general_perplexity"].comparisons] == ["method=better"]


def test_a_secondary_metric_is_computed_like_the_objective(study: Any) -> None:
    folder, right, expected = study
    analysis = analyse(read_study(folder))
    assert analysis.comparison("method=better").difference.value == pytest.approx(
        (right["method=better"] - right[BASELINE]).mean()
    )
    found = analysis.secondary["expected_acc"]
    assert (found.direction, found.margin) == ("maximize", None)
    assert np.array([cell.scores for cell in found.cells]) == pytest.approx(
        np.array([expected[cell].mean(axis=1) for cell in CELLS])
    )
    pool = SeedPools(found.cells, pooled_for_differences).of((0, 1, 2), found.cells[0].runs[0].items)
    each = [crossed_difference(expected[cell], expected[BASELINE], pooled=pool.times(2)) for cell in OTHERS]
    assert [c.difference.p for c in found.comparisons] == pytest.approx([d.p for d in each])
    assert [c.adjusted for c in found.comparisons] == pytest.approx(holm([d.p for d in each]))  # a family of its own
    assert [c.interval.low for c in found.comparisons] == pytest.approx([c.interval.low for c in corrected(each)])
    gain = {c.cell: c.difference.value for c in found.gains}  # the base model's items have the probability .223
    assert gain[BASELINE] == pytest.approx(expected[BASELINE].mean() - softmax([-1.25, -2.5])[1])
    nll = analysis.secondary["nll"]
    assert (nll.direction, nll.margin, analysis.margin) == ("minimize", 0.5, 2.0)
    assert next(c for c in nll.comparisons if c.cell == "method=better").verdict.better
    assert nll.gains == ()  # the base model's items have none


def test_a_report_has_a_section_and_files_for_each_secondary_metric(study: Any, tmp_path: Path) -> None:
    folder, _, expected = study
    analysis, document = write_report(folder, tmp_path)
    with (tmp_path / "tables" / "differences_expected_acc.csv").open() as file:
        lines = {line["cell"]: line for line in csv.DictReader(file)}
    assert float(lines["method=same"]["difference"]) == pytest.approx(
        (expected["method=same"] - expected[BASELINE]).mean()
    )
    assert {line["metric"] for line in lines.values()} == {"expected_acc"}
    with (tmp_path / "tables" / "differences.csv").open() as file:
        assert {line["metric"] for line in csv.DictReader(file)} == {"acc"}
    names = [table.name for table in document.tables]
    assert len(set(names)) == len(names)
    assert {"cells_expected_acc", "differences_nll", "gains_expected_acc"} <= {*names}
    assert (tmp_path / "tables" / "gains_expected_acc.tex").is_file()
    text = (tmp_path / "report.md").read_text()
    assert "## Secondary metric: expected_acc" in text
    assert "Its tests are a family of their own" in text
    assert "Scored by nll (lower is better). Its margin is 0.5. " in text
    errors = [
        own.difference.standard_error / main.difference.standard_error
        for main, own in zip(analysis.comparisons, analysis.secondary["expected_acc"].comparisons, strict=True)
    ]
    assert f"{np.median(errors):.2f} of those by the objective for the differences" in text
    sizes = [
        np.median([abs(each.difference.value) / each.difference.standard_error for each in own.comparisons])
        for own in (analysis.secondary["expected_acc"], analysis)
    ]
    assert "which are {:.1f} of their standard errors from 0 instead of {:.1f}".format(*sizes) in text
    assert sharpness(analysis, analysis.secondary["nll"]) == ""  # nats and points cannot be compared


def test_the_file_of_items_has_every_score_of_every_run(study: Any, tmp_path: Path) -> None:
    folder, right, expected = study
    write_report(folder, tmp_path, items=True)
    file = tmp_path / "tables" / ITEM_FILE
    lines = list(csv.DictReader(gzip.decompress(file.read_bytes()).decode().splitlines()))
    assert len(lines) == (3 * 3 + 1) * 60  # runs and the base model
    for line in (line for line in lines if line["run"] != BASE):
        place = int(line["seed"]), int(line["row"])
        assert float(line["acc"]) == right[line["cell"]][place]
        assert float(line["expected_acc"]) == pytest.approx(expected[line["cell"]][place], rel=1e-6)
    assert [float(line["acc"]) for line in lines if line["run"] == BASE] == right["base model"].tolist()
    first = file.read_bytes()
    write_report(folder, tmp_path, items=True)
    assert file.read_bytes() == first


def test_a_study_without_scores_of_items_has_no_file_of_them(tmp_path: Path) -> None:
    make_study(tmp_path / "study", CELLS, items=10, metric="perplexity", direction="minimize")
    with pytest.raises(UserError, match="--items needs scores of items, but perplexity of this study has none"):
        write_report(tmp_path / "study", tmp_path / "report", items=True)
    assert not (tmp_path / "report").exists()


def test_a_base_model_with_prompts_of_each_seed_has_secondary_scores_of_each_seed() -> None:
    def base(score: float, other: float) -> BaseModelScore:
        return BaseModelScore(score, 0.1, (), np.empty(0), secondary={"nll": Scored(other, error=0.2)})

    found = mean_over_seeds({0: base(0.5, 1.0), 1: base(0.7, 2.0)}).by_metric("nll")
    assert (found.score, found.error) == (1.5, pytest.approx(0.2))
    assert [found.of(seed).score for seed in (0, 1)] == [1.0, 2.0]
    assert mean_over_seeds({0: base(0.5, 1.0)}).by_metric("expected_acc") is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("expectedacc", "unknown metric 'expectedacc'; the nearest is expected_acc"),
        (["nll", "nll"], "secondary names nll twice"),
        (["acc"], "secondary names acc, which is the objective"),
        ({"nll": 1}, r"must be a list of metrics, such as \[expected_acc\]"),
        (["bleu"], "the secondary metric bleu is not measured on the report rows of piqa"),
    ],
)
def test_impossible_secondary_metrics_are_refused(given: Any, message: str, made: Any) -> None:
    with pytest.raises(UserError, match=message):
        made(axes={"r": [4, 8]}, objective="acc", secondary=given)


def test_each_metric_has_a_margin_of_its_own(made: Any) -> None:
    keys = {"axes": {"r": [4, 8]}, "objective": "acc", "secondary": ["expected_acc", "nll"]}
    described = describe_study(made(**keys, margin={"acc": 1, "nll": 0.01}))
    assert (described["margin"], described["secondary_margins"]) == (1.0, {"nll": 0.01})
    assert "margin" not in describe_study(made(**keys, margin={"nll": 0.01}))
    for given, message in (
        ({"nl": 1}, "the nearest is nll"),
        ({"nll": 0}, "margin is 0, but must be a number above 0"),
    ):
        with pytest.raises(UserError, match=message):
            made(**keys, margin=given)


def test_a_secondary_metric_that_is_the_default_objective_is_refused(made: Any) -> None:
    with pytest.raises(UserError, match="secondary names acc, which is the objective"):
        made(axes={"r": [4, 8]}, secondary=["acc"], margin={"acc": 1.0})


def test_one_margin_needs_metrics_of_one_unit(made: Any) -> None:
    keys: dict[str, Any] = {"axes": {"data.task": ["sst2", "cola"], "r": [4, 8]}, "baseline": {"r": 4}}
    with pytest.raises(UserError, match=r"margin is 1\.0, but the metrics of the cells have different units: acc, mcc"):
        made(**keys, margin=1.0)
    assert made(**keys, objective="acc", margin=1.0).margins == {"acc": 1.0}


def test_a_flag_changes_one_margin_and_keeps_the_others(made: Any, tmp_path: Path) -> None:
    keys = {"axes": {"r": [4, 8]}, "objective": "acc", "secondary": ["nll"]}
    made(**keys, margin={"acc": 1.0, "nll": 0.01})
    file = tmp_path / "study.yaml"
    assert load_study([file], [("margin.nll", "0.02")]).margins == {"acc": 1.0, "nll": 0.02}
    made(**keys, margin=1.0)
    with pytest.raises(UserError, match=r"--margin\.nll: the study has one margin, 1\.0; name all of them"):
        load_study([file], [("margin.nll", "0.02")])


def test_secondary_metrics_may_change_in_a_folder(made: Any, tmp_path: Path) -> None:
    before, after = (made(axes={"r": [4]}, objective="acc", secondary=given) for given in (None, ["expected_acc"]))
    assert "secondary" not in describe_study(before)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "study.json").write_text(json.dumps(describe_study(before)))
    assert check_folder(tmp_path / "folder", after) == ['secondary was null and is ["expected_acc"]']

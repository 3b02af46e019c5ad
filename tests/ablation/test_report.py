"""``report``: numbers compared with scipy and numpy, and texts about missing, failed, damaged and open results."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from smoa_lightning.__main__ import main
from smoa_lightning.ablation.report import comparisons
from smoa_lightning.ablation.report.analysis import Analysis, analyse
from smoa_lightning.ablation.report.contents import seed_note
from smoa_lightning.ablation.report.folder import read_study
from smoa_lightning.ablation.report.paired_cells import SeedPools
from smoa_lightning.ablation.report.searches import edge_sentences, search_blocks
from smoa_lightning.ablation.statistics import crossed_difference
from smoa_lightning.ablation.statistics.seed_variance import Pooled
from smoa_lightning.commands.report import write_report
from smoa_lightning.records.page.document import Paragraph, Points, Table
from tests.ablation.made_study import LR, make_study

CELLS: dict[str, dict[str, Any]] = {
    "method=lora": {"labels": {"method": "lora"}, "accuracy": 0.5, "parameters": 1000, "r": 8, "rank": 8.0},
    "method=better": {"labels": {"method": "better"}, "accuracy": 0.8, "parameters": 1000, "r": 8, "rank": 300.0},
    "method=same": {"labels": {"method": "same"}, "accuracy": 0.5, "parameters": 4000, "r": 8, "rank": 90.0},
}


def analysed(folder: Path, **keys: Any) -> tuple[Analysis, dict[str, np.ndarray]]:
    scores = make_study(folder, keys.pop("cells", CELLS), **keys)
    return analyse(read_study(folder)), scores


def table(out: Path, name: str) -> list[dict[str, str]]:
    with (out / "tables" / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# -------------------------------------------------------------------------------------------------------------- numbers


def test_means_are_student_s_over_seeds(tmp_path: Path) -> None:
    analysis, scores = analysed(tmp_path, seeds=range(4))
    for cell in analysis.cells:
        means = scores[cell.name].mean(axis=1)
        assert cell.scores == pytest.approx(means)
        assert cell.estimate is not None
        low, high = stats.t.interval(0.95, 3, means.mean(), stats.sem(means))
        assert (cell.estimate.value, cell.estimate.low, cell.estimate.high) == pytest.approx((means.mean(), low, high))


def test_items_are_paired_in_any_order(tmp_path: Path) -> None:
    _, scores = analysed(tmp_path)
    file = tmp_path / "runs" / "method=better,seed=1" / "items.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[::-1]) + "\n")
    found = analyse(read_study(tmp_path)).comparison("method=better")
    assert found is not None
    differences = scores["method=better"] - scores["method=lora"]
    assert found.difference.value == pytest.approx(differences.mean())
    assert (found.difference.n_seeds, found.difference.n_items, found.test) == (3, 300, "seeds and items")
    means = differences.mean(axis=1)
    assert found.effect == pytest.approx(means.mean() / means.std(ddof=1) * (1 - 3 / (4 * 2 - 1)), rel=0.02)


def test_each_cell_is_compared_with_the_base_model(tmp_path: Path) -> None:
    analysis, scores = analysed(tmp_path)
    assert [gain.cell for gain in analysis.gains] == list(CELLS)
    for gain in analysis.gains:
        differences = scores[gain.cell] - scores["base model"]  # the same items, and the same scores for every seed
        assert gain.difference.value == pytest.approx(differences.mean())
        assert (gain.difference.n_seeds, gain.difference.n_items) == (3, 300)
        by_items = stats.ttest_1samp(differences.mean(axis=0), 0).confidence_interval()
        assert gain.difference.low is not None
        assert gain.difference.low == pytest.approx(by_items.low, abs=0.01)  # here items vary much, seeds little
        assert gain.verdict.better
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Established to be better than the base model: 3 of 3 cells." in text
    assert [row["cell"] for row in table(tmp_path / "out", "gains")] == list(CELLS)


def test_few_shot_prompts_of_a_seed_are_compared_with_the_base_model_of_this_seed(tmp_path: Path) -> None:
    analysis, scores = analysed(tmp_path, fewshot=True)
    for gain in analysis.gains:
        differences = scores[gain.cell] - scores["base model"]
        assert gain.difference.value == pytest.approx(differences.mean())
        assert (gain.difference.n_seeds, gain.dropped) == (3, ())
        assert gain.pooled is not None
        assert gain.pooled.cells == 4  # the base model varies over seeds as the three cells do
    ((base, cells),) = analysis.base_models
    assert (base.score, len(cells)) == (pytest.approx(scores["base model"].mean()), 3)
    write_report(tmp_path, tmp_path / "out")
    assert ", the mean over the few-shot prompts of 3 seeds." in (tmp_path / "out" / "report.md").read_text()


def test_a_seed_without_a_score_of_its_prompts_has_no_gain(tmp_path: Path) -> None:
    analysis, scores = analysed(tmp_path, fewshot=True, missing=[("method=lora", 1)])
    (gain,) = (gain for gain in analysis.gains if gain.cell == "method=better")
    differences = (scores["method=better"] - scores["base model"])[[0, 2]]
    assert gain.difference.value == pytest.approx(differences.mean())
    assert (gain.difference.n_seeds, gain.dropped) == (2, (1,))


def test_a_report_without_a_score_of_the_base_model_does_not_mention_it(tmp_path: Path) -> None:
    analysis, _ = analysed(tmp_path, missing=[("method=lora", 0)])
    assert (analysis.gains, analysis.base_models) == ((), [])
    write_report(tmp_path, tmp_path / "out")
    assert "base model" not in (tmp_path / "out" / "report.md").read_text()


def test_a_large_difference_is_established_and_a_small_one_is_not(tmp_path: Path) -> None:
    analysis, _ = analysed(tmp_path)
    better, same = analysis.comparison("method=better"), analysis.comparison("method=same")
    assert better is not None
    assert same is not None
    assert (better.verdict.established, same.verdict.established) == (True, False)
    ps = [better.difference.p, same.difference.p]
    assert [better.adjusted, same.adjusted] == pytest.approx([min(2 * ps[0], 1), max(ps[1], 2 * ps[0])])
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "method=same is not shown to differ from method=lora" in text
    assert "method=better is better than method=lora" in text
    rows = {row["cell"]: row for row in table(tmp_path / "out", "differences")}
    row = rows["method=better"]
    assert (row["established"], row["verdict"]) == ("true", "better")
    assert float(row["p_holm"]) == pytest.approx(better.adjusted)
    assert rows["method=same"]["established"] == "false"
    assert rows["method=same"]["verdict"] == "not established"


def test_comparisons_share_their_seed_variance(tmp_path: Path) -> None:
    """The pooled variance is that of the two-way residuals of the accuracies of all cells."""
    analysis, scores = analysed(tmp_path, seeds=range(4))
    means = np.array([scores[name].mean(axis=1) for name in CELLS])
    rest = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
    found = analysis.comparison("method=same")
    assert found is not None
    assert found.pooled is not None
    assert found.pooled.variance == pytest.approx(2 * (rest**2).sum() / 6)
    assert found.pooled.bartlett == pytest.approx(stats.bartlett(*rest).pvalue)
    alone = crossed_difference(scores["method=same"], scores["method=lora"])
    expected = crossed_difference(scores["method=same"], scores["method=lora"], pooled=found.pooled)
    assert (found.difference.p, found.difference.low) == (expected.p, expected.low)
    assert found.difference.df != alone.df
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    how = "are pooled" if found.pooled.used else "are not pooled"
    assert f"The seed variances of 3 cells {how}" in text
    (row, _) = table(tmp_path / "out", "differences")
    assert float(row["bartlett_p"]) == pytest.approx(float(found.pooled.bartlett))
    gain = analysis.gains[0]
    assert gain.pooled is not None
    assert gain.pooled.variance == pytest.approx(means.var(axis=1, ddof=1).mean())


@pytest.mark.parametrize(
    ("p", "says"),
    [
        (0.181, "are not pooled, since they differ at the level of 0.2 (Bartlett's test: p = 0.181)."),
        (0.0001, "are not pooled, since they differ at the level of 0.2 (Bartlett's test: p < 0.001)."),
        (0.5, "are pooled (Bartlett's test: p = 0.500)."),
    ],
)
def test_the_note_of_the_seed_variances_names_the_level(p: float, says: str) -> None:
    comparison: Any = SimpleNamespace(pooled=Pooled(variance=1.0, df=4, bartlett=p, cells=3))
    assert seed_note([comparison]) == f"The seed variances of 3 cells {says}"


def test_two_cells_have_the_seed_variance_of_their_pair(tmp_path: Path) -> None:
    cells = {name: CELLS[name] for name in ("method=lora", "method=same")}
    analysis, scores = analysed(tmp_path, cells=cells)
    found, alone = analysis.comparisons[0], crossed_difference(scores["method=same"], scores["method=lora"])
    assert (found.difference.p, found.difference.df) == pytest.approx((alone.p, alone.df))


def test_a_cell_without_a_seed_is_left_out_of_the_pooled_variance(tmp_path: Path) -> None:
    analysis, _ = analysed(tmp_path, missing=[("method=better", 2)])
    pooled = {each.cell: each.pooled for each in analysis.comparisons}
    assert pooled["method=same"].cells == 2  # compared with three seeds, which only two cells have
    assert pooled["method=better"].cells == 3


def test_cells_of_one_family_share_one_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool reads the items of all its cells, so one for each comparison would take quadratic time."""
    families: list[list[str]] = []

    class Counted(SeedPools):
        def __init__(self, cells: Any, pool: Any) -> None:
            families.append([cell.name for cell in cells])
            super().__init__(cells, pool)

    monkeypatch.setattr(comparisons, "SeedPools", Counted)
    analysed(tmp_path)
    assert families == [[*CELLS], [*CELLS]]  # of the comparisons with the baseline, and of the gains


def test_lower_is_better_where_the_study_says_so(tmp_path: Path) -> None:
    cells = {name: {**facts, "accuracy": {"method=better": 0.9}.get(name, 0.3)} for name, facts in CELLS.items()}
    analysis, scores = analysed(tmp_path, cells=cells, metric="perplexity", direction="minimize", seeds=range(4))
    found = analysis.comparison("method=better")
    assert found is not None
    assert (found.test, found.difference.n_items) == ("seeds only", None)  # a perplexity is not a mean over items
    mine, theirs = (5 - 2 * scores[name].mean(axis=1) for name in ("method=better", "method=lora"))
    assert not found.pooled.used  # Bartlett's test rejects here, so the test is that of the pair alone
    assert found.difference.p == pytest.approx(stats.ttest_rel(mine, theirs).pvalue)
    assert found.verdict.established
    assert found.difference.value < 0
    assert found.verdict.sentence.startswith("method=better is better than method=lora by ")


def test_one_seed_is_compared_by_mcnemar_s_test_and_establishes_nothing(tmp_path: Path) -> None:
    analysis, scores = analysed(tmp_path, seeds=[0])
    found = analysis.comparison("method=better")
    assert found is not None
    better, lora = scores["method=better"][0], scores["method=lora"][0]
    gained, lost = int(((better == 1) & (lora == 0)).sum()), int(((better == 0) & (lora == 1)).sum())
    assert found.difference.p == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)
    assert found.test == "McNemar, one seed"
    assert not found.verdict.established  # one training run says nothing about the next


def test_seeds_of_only_one_cell_are_left_out_and_reported(tmp_path: Path) -> None:
    analysis, scores = analysed(tmp_path, missing=[("method=same", 2), ("method=better", 0)], seeds=range(4))
    found = analysis.comparison("method=same")
    assert found is not None
    both = [0, 1, 3]
    assert found.difference.value == pytest.approx((scores["method=same"][both] - scores["method=lora"][both]).mean())
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "method=same: 3 of 4 seeds are finished." in text
    assert "method=same and its baseline do not both have these seeds, which are not compared: 2." in text


def test_effects_of_a_grid(tmp_path: Path) -> None:
    cells = {
        f"r={r},k={k}": {"labels": {"r": str(r), "k": str(k)}, "accuracy": 0.4 + 0.05 * (r == 8) * 4, "parameters": r,
                         "r": r, "num_subspaces": k}
        for r in (4, 8) for k in (1, 2)
    }  # fmt: skip
    analysis, scores = analysed(tmp_path, cells=cells)
    assert analysis.grid is not None
    (effect,) = [level for level in analysis.grid.levels if level.axis == "r"]
    mean = {name: values.mean() for name, values in scores.items()}
    by_hand = (mean["r=8,k=1"] + mean["r=8,k=2"] - mean["r=4,k=1"] - mean["r=4,k=2"]) / 2
    assert effect.value == pytest.approx(by_hand)
    _, document = write_report(tmp_path, tmp_path / "out")
    assert {"effects", "levels"} <= {each.name for each in document.tables}


# ------------------------------------------------------------------------------------------ missing and damaged results


@pytest.mark.parametrize(
    ("best", "tried", "words"),
    [
        (0.2, [0.01, 0.1, 0.2, 0.4], None),  # beyond the range, and a larger value was worse
        (0.1, [0.01, 0.1, 0.2], None),  # at the end of the range, which was not the end of what was tried
        (0.4, [0.01, 0.1, 0.2, 0.4], "is the largest of 4 tried values"),
        (0.0995, [0.01, 0.1], "is at the upper end of its range"),
        (0.01, [0.005, 0.01, 0.1], None),
        (0.01, [0.01, 0.1], "is at the lower end of its range"),
    ],
)
def test_an_end_of_a_range_is_named_unless_values_beyond_it_were_worse(
    best: float, tried: list[float], words: str | None
) -> None:
    search = {"parameters": {"model.lr": {"low": 0.01, "high": 0.1, "log": True}}}
    trials = [{"parameters": {"model.lr": value}} for value in tried]
    found = edge_sentences("a", {"model.lr": best}, search, trials)
    assert len(found) == (words is not None)
    assert all(str(words) in sentence for sentence in found)


def test_failed_trials_and_values_at_an_end_of_the_range_are_reported(tmp_path: Path) -> None:
    make_study(tmp_path, CELLS, search=True)
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    end = (
        "method=lora: the best lr, 0.1, is the largest of 4 tried values, at the upper end of its range; a better "
        "value may be above it."
    )
    assert end in text
    assert "method=same,seed=9 failed after 2 attempts: UserError: no memory" in text
    assert "4 / 0 / 1" in text
    counts = {
        tuple(row[key] for key in ("complete", "pruned", "failed")) for row in table(tmp_path / "out", "searches")
    }
    assert counts == {("4", "0", "1")}
    assert [row["reason"] for row in table(tmp_path / "out", "trials")].count("UserError: it broke") == 3


def test_trials_beyond_the_ranges_are_counted_and_widen_the_range(tmp_path: Path) -> None:
    make_study(tmp_path, CELLS, search=True)
    description, trials = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("study", "trials"))
    description["search"] |= {"common": 4, "extend": {"factor": 2.0, "trials": 2}}
    for cell, value in (("method=lora", 0.9), ("method=better", 0.4)):  # worse and better than within the range
        search = trials["searches"][cell]
        more = {**search["trials"][0], "number": 5, "value": value, "parameters": {LR: 0.2}, "beyond": True}
        search["trials"].append(more)
        search["best"] = 3 if value > 0.5 else 5
    for name, content in (("study", description), ("trials", trials)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    study = read_study(tmp_path)
    table, points, note = search_blocks(study)[1:4]
    assert isinstance(table, Table)
    assert [row[-1] for row in table.rows] == ["1", "1", "0"]
    assert isinstance(points, Points)
    assert [sentence.split(";")[0] for sentence in points.sentences] == [
        "method=better: the best lr, 0.2, is the largest of 5 tried values, at the upper end of its range",
        "method=same: the best lr, 0.1, is the largest of 4 tried values, at the upper end of its range",
    ]
    assert isinstance(note, Paragraph)
    assert "Every cell has the same number of trials. The first 4 trials have the same values" in note.text
    assert "2 of 3 cells have some. So the cells have 5 to 6 trials." in note.text


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda run: (run / "record.json").write_text("{"), "record.json is damaged"),
        (lambda run: (run / "items.jsonl").write_text('{"row": 1'), "Expecting"),
    ],
    ids=["record", "items"],
)
def test_a_damaged_run_is_left_out_and_reported(harm: Any, says: str, tmp_path: Path, capsys: Any) -> None:
    make_study(tmp_path, CELLS)
    harm(tmp_path / "runs" / "method=same,seed=1")
    assert main(["report", str(tmp_path)]) == 0
    output = capsys.readouterr()
    assert "method=same,seed=1 is left out: " in output.err
    assert says in output.err
    assert output.out.startswith("Study made: 8 of 9 final runs, ")
    assert "method=same,seed=1 is left out" in (tmp_path / "report" / "report.md").read_text()


def test_runs_without_the_best_values_of_the_search_are_left_out(tmp_path: Path) -> None:
    make_study(tmp_path, CELLS, search=True)
    file = tmp_path / "runs" / "method=same,seed=1" / "record.json"
    record = json.loads(file.read_text())
    record["ablation"]["parameters"] = {LR: 0.03}  # the best value before the search got more trials
    file.write_text(json.dumps(record))
    study = read_study(tmp_path)
    assert [run.seed for run in study.runs["method=same"]] == [0, 2]
    assert study.damaged == (
        f"method=same,seed=1 is left out: it ran with {{'{LR}': 0.03}}, but its search has since found better values",
    )


def test_a_run_that_is_still_being_copied_is_ignored(tmp_path: Path) -> None:
    make_study(tmp_path, CELLS)
    shutil.copytree(tmp_path / "runs" / "method=same,seed=1", tmp_path / "runs" / ".method=same,seed=1.7-ab.tmp")
    assert [run.seed for run in read_study(tmp_path).runs["method=same"]] == [0, 1, 2]


def test_ranks_are_those_of_the_budget_or_the_search(tmp_path: Path) -> None:
    make_study(tmp_path, CELLS)
    for seed, name in ((0, "lora"), (1, "lora"), (2, "lora"), (1, "same")):
        file = tmp_path / "runs" / f"method={name},seed={seed}" / "record.json"
        record = json.loads(file.read_text())
        record["budget"] = {"changes": {"r": 64}}
        file.write_text(json.dumps(record))
    cells = {cell.name: cell.setting("model.adapter.init_args.r") for cell in analyse(read_study(tmp_path)).cells}
    assert cells == {"method=lora": 64, "method=better": 8, "method=same": None}


def test_running_runs_and_runs_of_removed_cells_do_not_count(tmp_path: Path) -> None:
    make_study(tmp_path, CELLS)
    for name, change in (("method=same,seed=1", {"status": "running"}), ("method=same,seed=2", {"cell": "gone"})):
        file = tmp_path / "runs" / name / "record.json"
        record = json.loads(file.read_text())
        record["status"] = change.get("status", "finished")
        record["ablation"]["cell"] = change.get("cell", "method=same")
        file.write_text(json.dumps(record))
    study = read_study(tmp_path)
    assert {cell: [run.seed for run in runs] for cell, runs in study.runs.items()} == {
        "method=lora": [0, 1, 2], "method=better": [0, 1, 2], "method=same": [0],
    }  # fmt: skip
    assert study.damaged == ()


def test_facts_that_differ_between_runs_are_reported(tmp_path: Path) -> None:
    make_study(tmp_path, CELLS)
    file = tmp_path / "runs" / "method=same,seed=1" / "record.json"
    record = json.loads(file.read_text())
    record["environment"]["packages"]["torch"] = "2.12.0"
    file.write_text(json.dumps(record))
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "different package versions: torch 2.13.0 (8 runs); torch 2.12.0 (1 run)" in text
    assert "/somewhere" not in text  # the path of a local model is private


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda folder: None, " does not exist; name a folder that ablate or fit has written"),
        (lambda folder: folder.mkdir(), "is not a study folder: it has no study.json"),
        (lambda folder: make_study(folder, CELLS, missing=[(c, s) for c in CELLS for s in range(3)]),
         "no final run of the study in "),
        (lambda folder: (make_study(folder, CELLS), (folder / "study.json").write_text("{")), "study.json is damaged"),
        (lambda folder: (make_study(folder, CELLS), (folder / "study.json").write_text('{"format": 7}')),
         "has the format 7, but this version reads the format 1"),
    ],
    ids=["no folder", "no study", "nothing finished", "damaged", "newer"],
)  # fmt: skip
def test_bad_folders_are_refused_in_a_sentence(prepare: Any, says: str, tmp_path: Path, capsys: Any) -> None:
    prepare(tmp_path / "study")
    assert main(["report", str(tmp_path / "study"), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_searched_parameter_has_its_name_of_the_study(tmp_path: Path) -> None:
    make_study(tmp_path, CELLS, search=True)
    assert LR in read_study(tmp_path).description["search"]["parameters"]

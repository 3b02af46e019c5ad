"""``report``: numbers compared with scipy and numpy."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from smoa_lightning.ablation.report import comparisons
from smoa_lightning.ablation.report.analysis import Analysis, analyse
from smoa_lightning.ablation.report.contents import seed_note
from smoa_lightning.ablation.report.folder import read_study
from smoa_lightning.ablation.report.paired_cells import SeedPools
from smoa_lightning.ablation.report.summary import best_cell
from smoa_lightning.ablation.statistics import crossed_difference
from smoa_lightning.ablation.statistics.seed_variance import Pooled
from smoa_lightning.commands.report import write_report
from tests.ablation.made_study import CELLS, make_study, table


def analysed(folder: Path, **keys: Any) -> tuple[Analysis, dict[str, np.ndarray]]:
    scores = make_study(folder, keys.pop("cells", CELLS), **keys)
    return analyse(read_study(folder)), scores


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
    assert ", over 3 seeds." in (tmp_path / "out" / "report.md").read_text()


def test_a_seed_without_a_score_of_its_prompts_has_no_gain(tmp_path: Path) -> None:
    analysis, scores = analysed(tmp_path, fewshot=True, missing=[("method=lora", 1)])
    (gain,) = (gain for gain in analysis.gains if gain.cell == "method=better")
    differences = (scores["method=better"] - scores["base model"])[[0, 2]]
    assert gain.difference.value == pytest.approx(differences.mean())
    assert (gain.difference.n_seeds, gain.dropped) == (2, (1,))


def test_a_score_of_the_base_model_that_is_missing_is_named_once(tmp_path: Path) -> None:
    analysis, _ = analysed(tmp_path, missing=[("method=lora", 0)])
    assert (analysis.gains, analysis.base_models) == ((), [])
    write_report(tmp_path, tmp_path / "out")
    (sentence,) = re.findall(r".*base model.*", (tmp_path / "out" / "report.md").read_text())
    assert sentence == (
        "* The base model has no score for method=lora; method=better; method=same: no finished run of method=lora has "
        "measured it."
    )


def test_a_report_before_the_first_run_of_the_baseline_says_so(tmp_path: Path) -> None:
    analysed(tmp_path, missing=[("method=lora", seed) for seed in range(3)])
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.splitlines()[2] == "No difference was tested, since no two cells can be compared yet."
    assert "method=better is not compared: method=lora has no finished run." in text
    assert "no baseline" not in text
    assert "none of 0" not in text


def test_cells_with_other_rows_are_not_ranked(tmp_path: Path) -> None:
    """A task with easier rows has a higher accuracy, which says nothing about its settings."""
    analysis, _ = analysed(tmp_path)
    assert best_cell(analysis).name == "method=better"
    for file in (tmp_path / "runs").glob("method=better,*/items.jsonl"):
        file.write_text("".join(line + "\n" for line in file.read_text().splitlines()[:200]))
    assert best_cell(analyse(read_study(tmp_path))) is None


@pytest.mark.parametrize(("metric", "over"), [("acc", "seeds and items"), ("perplexity", "seeds")])
def test_the_caption_of_the_differences_names_what_they_are_over(metric: str, over: str, tmp_path: Path) -> None:
    analysed(tmp_path, metric=metric, direction="maximize" if metric == "acc" else "minimize")
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"with 95 % intervals over {over}, corrected" in text
    assert ("Each difference is over paired seeds and paired items" in text) == (metric == "acc")


def test_the_note_of_the_gains_knows_prompts_that_follow_the_seed(tmp_path: Path) -> None:
    for name, fewshot in (("one", False), ("by_seed", True)):
        analysed(tmp_path / name, fewshot=fewshot)
        write_report(tmp_path / name, tmp_path / name / "out")
        text = (tmp_path / name / "out" / "report.md").read_text()
        assert ("The base model has no seed" in text) == (not fewshot)
        assert ("the base model has a score for each seed" in text) == fewshot


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

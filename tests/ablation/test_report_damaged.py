"""Reports of studies with missing, damaged or unusual results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.ablation.report.analysis import analyse
from smoa_lightning.ablation.report.folder import read_study
from smoa_lightning.ablation.report.searches import edge_sentences, search_blocks, tie_sentences
from smoa_lightning.commands.report import write_report
from smoa_lightning.records.page.document import Paragraph, Points, Table
from tests.ablation.made_study import CELLS, LR, make_study, table


@pytest.mark.parametrize(
    ("best", "tried", "words"),
    [
        (0.2, [0.01, 0.1, 0.2, 0.4], None),  # beyond the range, and a larger value was worse
        (0.1, [0.01, 0.1, 0.2], None),  # at the end of the range, which was not the end of what was tried
        (0.4, [0.01, 0.1, 0.2, 0.4], "is the largest of 4 tried values"),
        (0.0995, [0.01, 0.1], "is at the upper end of its range"),
        (0.01, [0.005, 0.01, 0.1], None),
        (0.01, [0.01, 0.1], "is the smallest of 2 tried values, at the lower end of its range"),
        (0.01, [0.01], "is at the lower end of its range"),
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


def test_equal_scores_of_other_values_are_named() -> None:
    trials = [
        {"value": score, "parameters": {"model.lr": lr}} for score, lr in ((0.3, 1), (0.5, 2), (0.5, 2), (0.5, 4))
    ]
    assert tie_sentences("a", trials[0], trials) == []
    assert tie_sentences("a", trials[1], trials) == [
        "a: lr 4 scored the same as the best values, lr 2; the first counts."
    ]
    sentence = tie_sentences("a", trials[3], trials)
    assert sentence == ["a: lr 2 and 1 more scored the same as the best values, lr 4; the first counts."]


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

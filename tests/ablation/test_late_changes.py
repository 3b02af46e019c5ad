"""A margin, a contrast or a seed that is chosen when a study has results is named in its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from smoa_lightning.__main__ import main
from smoa_lightning.ablation.report.analysis import analyse
from smoa_lightning.ablation.report.folder import read_study
from smoa_lightning.ablation.report.summary import summary
from smoa_lightning.ablation.study.study_compatibility import LATE, late_changes
from smoa_lightning.common.checksums import read_sealed, write_sealed
from tests.ablation.made_study import CELLS, make_study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_only_changes_after_results_count(tmp_path: Path) -> None:
    assert late_changes(tmp_path / "new", [], 0) == []
    write_sealed(tmp_path / "study.json", {"name": "s"})
    assert late_changes(tmp_path, ["margin was null and is 1.0"], 0) == []
    assert late_changes(tmp_path, ["retries was 1 and is 2", 'keep was "best" and is "none"'], 3) == []
    late = late_changes(tmp_path, ["margin was 1.0 and is 2.0", "new seeds: 3, 4"], 1)
    assert late == ["after 1 final run: margin was 1.0 and is 2.0", "after 1 final run: new seeds: 3, 4"]
    write_sealed(tmp_path / "study.json", {"name": "s", LATE: late})
    assert late_changes(tmp_path, [], 6) == late  # a start without a change keeps them
    assert late_changes(tmp_path, ["margin was 2.0 and is 1.0"], 6)[2:] == [
        "after 6 final runs: margin was 2.0 and is 1.0"
    ]


def test_the_report_begins_with_the_changes(tmp_path: Path) -> None:
    make_study(tmp_path, CELLS)
    assert not any("changed when it had results" in sentence for sentence in summary(analyse(read_study(tmp_path))))
    content = json.loads((tmp_path / "study.json").read_text())
    write_sealed(tmp_path / "study.json", content | {LATE: ["after 6 final runs: margin was 1.0 and is 5.0"]})
    first = summary(analyse(read_study(tmp_path)))[0]
    assert first.startswith("The study was changed when it had results, which p and intervals do not know: after 6 fin")
    assert first.endswith("margin was 1.0 and is 5.0.")


def test_the_report_says_that_sizes_differ(tmp_path: Path) -> None:
    make_study(tmp_path / "same", {name: facts | {"parameters": 1000} for name, facts in CELLS.items()})
    assert not any("izes differ" in sentence for sentence in summary(analyse(read_study(tmp_path / "same"))))
    larger = {name: facts | {"parameters": 1000 + 500 * (name == "method=better")} for name, facts in CELLS.items()}
    make_study(tmp_path / "other", larger)
    sentences = summary(analyse(read_study(tmp_path / "other")))
    assert sentences[-1].startswith("Sizes differ: 1,000 parameters in method=lora, 1,500 in method=better. So a diff")


def test_a_study_that_is_started_again_with_another_margin(
    tiny_backbone: Path, piqa_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"model.backbone.source": "local", "model.backbone.path": str(tiny_backbone), "data.source": "local",
             "data.path": str(piqa_folder), "data.limit_train_rows": 24, "data.limit_report_rows": 8,
             "data.selection_rows": 0, "trainer.max_steps": 1, "trainer.accelerator": "cpu", "model.warmup": 0,
             "forgetting.text": None, "rank_monitor.max_layers": 0}  # fmt: skip
    study = {"base": [str(EXPERIMENTS / "piqa.yaml")], "name": "late", "axes": {"r": [2, 4]}, "baseline": {"r": 2},
             "seeds": [0], "margin": 1.0, "overrides": flags}  # fmt: skip
    (tmp_path / "late.yaml").write_text(yaml.safe_dump(study))
    command = ["ablate", "--config", str(tmp_path / "late.yaml"), "--root", str(tmp_path)]
    assert main(command) == 0
    assert LATE not in (read_sealed(tmp_path / "late" / "study.json") or {})
    assert main([*command, "--margin=50", "--retries=0"]) == 0
    late = (read_sealed(tmp_path / "late" / "study.json") or {})[LATE]
    assert late == ["after 2 final runs: margin was 1.0 and is 50.0"]
    assert main(["report", str(tmp_path / "late")]) == 0
    for name in ("report.md", "report.html"):
        text = (tmp_path / "late" / "report" / name).read_text(encoding="utf-8")
        assert "after 2 final runs: margin was 1.0 and is 50.0" in text

"""Items of a task whose rows share groups have their group in ``items.jsonl``."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.training.callbacks.item_scores import _add_groups
from smoa_lightning.training.truncation import open_rows


@pytest.mark.parametrize("task", ["convai2", "piqa"])
def test_items_have_the_groups_of_their_task(task: str) -> None:
    data = TaskDataModule(task=task, source="embedded")
    data.resolve()
    rows = data.rows(data.sets.task.report_split)
    items = [{"row": row} for row in data.indices("report")]
    _add_groups(items, data)
    groups: dict[str, list[int]] = defaultdict(list)
    for item in items:
        groups[data.task.group(rows[item["row"]])].append(item["row"])
    assert (max(map(len, groups.values())) > 1) == ("group" in items[0])
    if task == "convai2":
        assert "group" in items[0]
        first = {row: members[0] for members in groups.values() for row in members}
        assert {item["row"]: item["group"] for item in items} == first


def test_truncation_and_export_have_the_standard_errors_of_the_run(
    tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    flags = [
        *("--config", str(Path(__file__).parents[2] / "experiments" / "convai2.yaml"), "--run.folder", str(run)),
        *("--model.backbone.source", "local", "--model.backbone.path", str(tiny_backbone), "--model.adapter.r", "4"),
        *("--data.source", "embedded", "--data.limit_report_rows", "24", "--data.limit_train_rows", "8"),
        *("--data.max_new_tokens", "4", "--forgetting.text", "null", "--data.selection_rows", "0"),
        *("--trainer.max_steps", "1", "--run.score_base", "false"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "1"),
    ]
    assert main(["fit", *flags]) == 0
    items = [json.loads(line) for line in (run / "items.jsonl").read_text().splitlines()]
    assert len({item.get("group") for item in items}) < len(items) == 24
    recorded = json.loads((run / "record.json").read_text())["metrics"]
    source, probe = open_rows(run)
    found = probe.metrics(source.model_of_the_run())
    errors = [name for name in found if name.endswith("_stderr")]
    assert len(errors) >= 3
    assert [found[name] for name in errors] == pytest.approx([recorded[f"report/{name}"] for name in errors], rel=1e-5)
    assert probe.data is not None
    monkeypatch.setattr(probe.data.sets, "groups", lambda part, task: np.arange(10_000))
    plain = probe.metrics(source.model_of_the_run())
    assert abs(plain["nll_stderr"] - found["nll_stderr"]) > 1e-3 * found["nll_stderr"]

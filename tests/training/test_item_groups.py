"""Items of a task whose rows share groups have their group in ``items.jsonl``."""

from __future__ import annotations

from collections import defaultdict

import pytest

from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.training.callbacks.item_scores import _add_groups


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

"""Which cells share a score of the base model, and which cell measures it."""

from __future__ import annotations

from typing import Any

import pytest

from smoa_lightning.ablation.study.base_model import base_seeds, scored_with


@pytest.mark.parametrize(
    ("axes", "baseline", "shared"),
    [
        ({"r": [4, 8]}, None, {"r=4": "r=4", "r=8": "r=4"}),
        ({"r": [4, 8]}, {"r": 8}, {"r=4": "r=8", "r=8": "r=8"}),
        ({"batch_size": [4, 8]}, None, {"batch_size=4": "batch_size=4", "batch_size=8": "batch_size=4"}),
        ({"task": ["piqa", "boolq"]}, None, {"task=piqa": "task=piqa", "task=boolq": "task=boolq"}),
        ({"num_fewshot": [0, 2]}, None, {"num_fewshot=0": "num_fewshot=0", "num_fewshot=2": "num_fewshot=2"}),
        ({"dtype": ["float32", "bfloat16"]}, None, {f"dtype={d}": f"dtype={d}" for d in ("float32", "bfloat16")}),
    ],
    ids=str,
)
def test_cells_with_the_same_backbone_and_rows_share_a_score(
    axes: dict[str, Any], baseline: dict[str, Any] | None, shared: dict[str, str], made: Any
) -> None:
    assert scored_with(made(axes=axes, **({} if baseline is None else {"baseline": baseline}))) == shared


@pytest.mark.parametrize(
    ("key", "values", "fewshot", "one_score"),
    [
        ("data.seed", [1, 2], 0, True),
        ("data.seed", [1, 2], 2, False),
        ("selection_rows", [4, 8], 2, False),
        ("limit_train_rows", [40, 80], 2, False),
        ("batch_size", [4, 8], 2, True),
    ],
)
def test_what_chooses_the_shots_decides_the_score_of_the_base_model(
    key: str, values: list[int], fewshot: int, one_score: bool, made: Any
) -> None:
    found = scored_with(made(axes={key: values}, overrides={"data.num_fewshot": fewshot}))
    assert len(found) == 2
    assert (len(set(found.values())) == 1) == one_score


@pytest.mark.parametrize(
    ("overrides", "search", "seeds"),
    [
        ({}, None, (0,)),
        ({"data.num_fewshot": 2}, None, (0, 1, 2)),
        ({"data.num_fewshot": 2, "data.seed": 5}, None, (0,)),
        ({}, {"data.num_fewshot": {"choices": [0, 2]}}, (0, 1, 2)),
        ({}, {"lr": {"low": 0.01, "high": 0.1}}, (0,)),
    ],
    ids=str,
)
def test_the_base_model_is_scored_for_each_seed_that_chooses_the_prompts(
    overrides: dict[str, Any], search: Any, seeds: tuple[int, ...], made: Any
) -> None:
    keys = {} if search is None else {"search": {"parameters": search, "trials": 2}}
    study = made(axes={"r": [4, 8]}, seeds=3, overrides=overrides, **keys)
    assert base_seeds(study, study.cells[0]) == seeds


@pytest.mark.parametrize(
    ("overrides", "one_score"),
    [({"data.num_fewshot": 2}, False), ({"data.num_fewshot": 2, "data.seed": 5}, True), ({}, True)],
    ids=str,
)
def test_cells_with_other_seeds_share_a_score_if_their_prompts_are_the_same(
    overrides: dict[str, Any], one_score: bool, made: Any
) -> None:
    axis = {"values": {"a": {"seed_offset": 0}, "b": {"seed_offset": 500}}}
    found = scored_with(made(axes={"repeat": axis["values"]}, overrides=overrides))
    assert (len(set(found.values())) == 1) == one_score


def test_searched_prompts_give_each_cell_a_base_model_of_its_own(made: Any) -> None:
    search = {"parameters": {"num_fewshot": {"choices": [0, 2]}}, "trials": 2}
    found = scored_with(made(axes={"r": [4, 8]}, search=search))
    assert found == {"r=4": "r=4", "r=8": "r=8"}

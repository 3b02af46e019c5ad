"""Ranges of an adapter that a search would widen beyond what the adapter allows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.ablation.planning import estimate
from smoa_lightning.ablation.planning.extension_check import check_extension
from smoa_lightning.ablation.study.extension import beyond
from smoa_lightning.ablation.study.reach import with_stored_reach
from smoa_lightning.ablation.study.space import Study
from smoa_lightning.ablation.study.study_compatibility import describe_study
from smoa_lightning.common.checksums import write_sealed
from smoa_lightning.records.record import STUDY

RANK = "model.adapter.init_args.r"


def search(**parameters: Any) -> dict[str, Any]:
    return {"parameters": parameters, "trials": 2, "seeds": [100], "extend": {"factor": 2, "trials": 3}}


def test_a_rank_grows_to_the_last_value_that_the_adapter_takes(
    make: Callable[..., Study], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The smallest layer is 16 x 32, so its blocks allow r = 16; workers read the end from the study folder."""
    axes = {"num_subspaces": [2, 4]}
    study = make(axes, search=search(r={"low": 4, "high": 16, "log": True}))
    checked = check_extension(study)
    ends = {cell.name: cell.parameters[0].reach for cell in checked.cells}
    assert ends["num_subspaces=2"][1] == 16
    assert "the search of cell num_subspaces=2: r 32 is refused, so search.extend stops at 16: " in caplog.text
    stored = json.loads(json.dumps(describe_study(checked)))
    write_sealed(tmp_path / "out" / STUDY, stored)
    worker = with_stored_reach(study, tmp_path / "out")
    assert worker.cells == checked.cells
    for cell in worker.cells:
        (parameter,) = cell.parameters
        last = int(min(parameter.reach[1], 128))
        tried = [{RANK: 4}, {RANK: last}]
        refused = estimate.refusal(cell, study, {RANK: last})
        assert not refused
        assert (beyond({RANK: last}, tried, [parameter], 2.0) is None) == bool(
            estimate.refusal(cell, study, {RANK: 2 * last})
        )


def test_an_end_of_a_range_that_is_refused_is_reported(
    make: Callable[..., Study], caplog: pytest.LogCaptureFixture
) -> None:
    checked = check_extension(make({"num_subspaces": [2]}, search=search(r={"low": 1, "high": 80, "log": True})))
    assert checked.cells[0].parameters[0].reach == (1, 80)
    for end in (1, 80):  # one rank for two subspaces, and more than a layer has
        assert f"r {end} is refused, so trials near it will fail: SMoAConfig" in caplog.text


def test_a_learning_rate_is_not_tried(make: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "refusal", lambda *arguments: pytest.fail("a cell was built"))
    study = make({"r": [2]}, search=search(lr={"low": 1.0e-4, "high": 1.0e-2, "log": True}))
    assert check_extension(study) is study
    assert "reach" not in describe_study(study)

"""A search whose trials would never be scored is refused before any of them trains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.ablation.planning import estimate
from smoa_lightning.ablation.planning.search_check import check_search
from smoa_lightning.ablation.study.space import Study
from smoa_lightning.common.checksums import write_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import TRIALS

SEARCH = {"parameters": {"lr": {"low": 1.0e-4, "high": 1.0e-2, "log": True}}, "trials": 2, "seeds": [100]}


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        ({"trainer.max_steps": 3}, True),  # an epoch has 8 batches
        ({"trainer.max_steps": 7, "trainer.accumulate_grad_batches": 1}, True),
        ({"trainer.max_steps": 15, "trainer.max_epochs": 9, "trainer.check_val_every_n_epoch": 2}, True),
        ({"trainer.max_steps": 8}, False),
        ({"trainer.max_steps": 3, "trainer.val_check_interval": 3}, False),
        ({"trainer.max_steps": 4, "trainer.accumulate_grad_batches": 2}, False),
        ({"trainer.max_steps": 3, "trainer.val_check_interval": "00:00:00:01"}, False),  # the clock decides
        ({}, False),
    ],
    ids=str,
)
def test_a_search_whose_trials_are_never_scored_is_refused(
    overrides: dict[str, Any], refused: bool, make: Callable[..., Study]
) -> None:
    study = make({"r": [2]}, overrides, search=SEARCH)
    with (
        pytest.raises(UserError, match=r"^cell r=2 cannot be run: .* before the first scoring.* an epoch has 8")
        if (refused)
        else contextlib.nullcontext()
    ):
        check_search(study)
    check_search(make({"r": [2]}, overrides))  # without a search, the last adapter counts


@pytest.mark.parametrize(
    ("parameter", "refused"),
    [
        ({"trainer.max_steps": {"choices": [3, 8]}}, False),
        ({"trainer.max_steps": {"low": 3, "high": 9}}, False),
        ({"trainer.max_steps": {"choices": [3, 5]}}, True),
        ({"trainer.accumulate_grad_batches": {"low": 1, "high": 2}}, False),
        ({"trainer.max_steps": {"choices": [3, 4]}, "trainer.accumulate_grad_batches": {"choices": [1, 2]}}, False),
    ],
    ids=str,
)
def test_a_search_with_values_that_are_scored_is_accepted(
    parameter: dict[str, Any], refused: bool, make: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = {} if "trainer.max_steps" in parameter else {"trainer.max_steps": 4}
    study = make({"r": [2]}, fixed, search=SEARCH | {"parameters": SEARCH["parameters"] | parameter})
    with pytest.raises(UserError, match="before the first scoring") if refused else contextlib.nullcontext():
        check_search(study)
    monkeypatch.setattr(estimate, "VARIANTS", 1)
    check_search(study)  # with more values than are tried, nothing is known


def test_a_search_without_remaining_trials_reads_no_rows(
    make: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make({"r": [2, 4]}, {"trainer.max_steps": 3}, search=SEARCH)
    checked: list[list[str]] = []
    monkeypatch.setattr(estimate, "check_cells", lambda study, cells: checked.append([cell.name for cell in cells]))
    done = [{"number": 0, "state": "PRUNED"}, {"number": 1, "state": "PRUNED"}]
    for finished, names in (([], ["r=2", "r=4"]), (["r=2"], ["r=4"]), (["r=2", "r=4"], None)):
        write_sealed(tmp_path / TRIALS, {"searches": {name: {"trials": done} for name in finished}})
        checked.clear()
        check_search(study, tmp_path)
        assert checked == ([] if names is None else [names])


def test_plan_and_ablate_say_that_trials_are_never_scored(
    make: Callable[..., Study], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make({"r": [2]}, {"trainer.max_steps": 3}, search=SEARCH)
    arguments = ["ablate", "--config", str(tmp_path / "tiny.yaml"), "--root", str(tmp_path / "studies")]
    for plan_only in (["--plan"], []):
        assert main([*arguments, *plan_only]) == 2
        assert "training ends after 3 steps, before the first scoring" in capsys.readouterr().err
    assert not (tmp_path / "studies").exists()
    with pytest.raises(UserError, match=r"compares trials on selection rows, but trainer\.limit_val_batches is 0"):
        make({"r": [2]}, {"trainer.limit_val_batches": 0}, search=SEARCH)

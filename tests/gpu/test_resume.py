"""A run that was cut and resumed draws the same random numbers on the device as one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from smoa_lightning.__main__ import main
from smoa_lightning.training.module import FineTuneModule

from ..runs import Killed, die_at_step, only_run


def states(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> dict[int, Tensor]:
    """The random state of the device before each training step of the runs that follow, by step."""
    seen: dict[int, Tensor] = {}
    original = FineTuneModule.training_step

    def step(self: FineTuneModule, batch: Any, batch_idx: int) -> Tensor:
        state = torch.cuda.get_rng_state(self.device) if device.type == "cuda" else torch.get_rng_state()
        seen[self.trainer.global_step] = state.clone()
        return original(self, batch, batch_idx)

    monkeypatch.setattr(FineTuneModule, "training_step", step)
    return seen


def test_a_resumed_run_goes_on_with_the_same_random_state(
    tiny_arguments: list[str],
    on_device: list[str],
    device: torch.device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["fit", *tiny_arguments, *on_device, "--model.adapter.dropout", "0.1", "--trainer.max_steps", "8"]
    arguments += ["--checkpoint.every_n_steps", "4"]
    with monkeypatch.context() as patch:
        expected = states(patch, device)
        assert main([*arguments, "--run.root", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        die_at_step(patch, 5)
        with pytest.raises(Killed):
            main([*arguments, "--run.root", str(tmp_path / "cut")])
    with monkeypatch.context() as patch:
        found = states(patch, device)
        assert main([*arguments, "--run.root", str(tmp_path / "cut")]) == 0
    assert sorted(found) == [4, 5, 6, 7]
    assert all(torch.equal(found[step], expected[step]) for step in found)
    file = "adapter/last/adapter_model.safetensors"
    whole, cut = (load_file(only_run(tmp_path / name) / file) for name in ("whole", "cut"))
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-4, atol=1e-5)  # kernels may add in another order

"""Backbones in 16 bits on the device, and runs with the trainer's mixed precisions."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from smoa_lightning.__main__ import main
from smoa_lightning.adapters import attach

from ..adapters.architectures import ARCHITECTURES, inputs, logits
from ..adapters.test_matrix import METHODS, adapter_parameters, distance, randomise
from .conftest import KIND

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_adapters_stay_in_float32_and_are_right(method: str, dtype: torch.dtype, device: torch.device) -> None:
    base = ARCHITECTURES["llama"]()
    given = inputs(base)
    exact = attach(copy.deepcopy(base), METHODS[method](), seed=0).eval()
    randomise(exact)
    model = attach(copy.deepcopy(base).to(dtype), METHODS[method](), seed=0).eval().to(device)
    assert {p.dtype for p in adapter_parameters(model)} == {torch.float32}
    with torch.no_grad():
        plain, expected = logits(base, **given), logits(exact, **given)
        for parameter, value in zip(adapter_parameters(model), adapter_parameters(exact), strict=True):
            parameter.copy_(value)
    found = logits(model, **{name: value.to(device) for name, value in given.items()})
    assert found.dtype == dtype
    assert distance(found.cpu(), expected) < 0.2 * distance(expected, plain)
    gradients = torch.autograd.grad(found.float().square().mean(), adapter_parameters(model))
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)


def loss_of(folder: Path) -> float:
    return float(json.loads((folder / "record.json").read_text())["metrics"]["train/loss"])


@pytest.fixture
def exact_loss(tiny_arguments: list[str], on_device: list[str], tmp_path: Path) -> float:
    """The loss of five steps in float32."""
    flags = [*tiny_arguments, *on_device, "--trainer.max_steps", "5", "--run.folder", str(tmp_path / "exact")]
    assert main(["fit", *flags]) == 0
    return loss_of(tmp_path / "exact")


@pytest.mark.parametrize("flags", [["--model.backbone.dtype", "bfloat16"], ["--trainer.precision", "bf16-mixed"]])
def test_a_run_in_bfloat16(
    flags: list[str], exact_loss: float, tiny_arguments: list[str], on_device: list[str], tmp_path: Path
) -> None:
    whole = [*tiny_arguments, *on_device, *flags, "--trainer.max_steps", "5", "--run.folder", str(tmp_path / "run")]
    assert main(["fit", *whole]) == 0
    assert loss_of(tmp_path / "run") == pytest.approx(exact_loss, rel=0.02)


def test_a_backbone_in_float16_is_refused_by_a_run(
    tiny_arguments: list[str], on_device: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *tiny_arguments, *on_device, "--model.backbone.dtype", "float16"]) == 2
    error = capsys.readouterr().err
    assert "dtype" in error
    assert "bfloat16" in error


@pytest.mark.skipif(KIND == "cpu", reason="the mixed precision of float16 needs a CUDA device")
def test_the_mixed_precision_of_float16_is_right_or_refused(
    exact_loss: float,
    tiny_arguments: list[str],
    on_device: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = [*tiny_arguments, *on_device, "--trainer.precision", "16-mixed", "--trainer.max_steps", "5"]
    status = main(["fit", *flags, "--run.folder", str(tmp_path / "run")])
    if status == 0:
        assert loss_of(tmp_path / "run") == pytest.approx(exact_loss, rel=0.02)
    else:
        assert status == 2
        assert "precision" in capsys.readouterr().err

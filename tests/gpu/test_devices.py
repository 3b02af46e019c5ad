"""What is computed on the device is what a CPU computes: every method, merging, files, and a whole run."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from smoa_lightning.__main__ import main
from smoa_lightning.adapters import attach

from ..adapters.architectures import ARCHITECTURES, inputs, logits
from ..adapters.test_matrix import METHODS, adapter_parameters, layers, randomise

KINDS = ("llama", "gpt2", "bert")
SLOTS = ("surm_slot", "bottleneck_houlsby", "bottleneck_pfeiffer")  # no change of a weight: nothing to merge
CPU = torch.device("cpu")


def adapted(method: str, kind: str = "llama") -> nn.Module:
    """A random adapter of a method on a CPU."""
    model = attach(ARCHITECTURES[kind](), METHODS[method](), seed=0).eval()
    randomise(model)
    return model


def run(model: nn.Module, where: torch.device) -> Tensor:
    return logits(model, **{name: value.to(where) for name, value in inputs(model).items()})


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().cpu().double() - expected.detach().double()).norm() / expected.detach().norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_logits_and_gradients_are_those_of_a_cpu(method: str, kind: str, device: torch.device) -> None:
    here = adapted(method, kind)
    there = copy.deepcopy(here).to(device)
    found, expected = [], []
    for model, where, into in ((here, CPU, expected), (there, device, found)):
        into.append(run(model, where))
        into.extend(torch.autograd.grad(into[0].square().mean(), adapter_parameters(model)))
    assert {value.device.type for value in found} == {device.type}
    assert relative(found[0], expected[0]) < 1e-4
    for gradient, wanted in zip(found[1:], expected[1:], strict=True):
        assert relative(gradient, wanted) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_attached_on_the_device_starts_as_the_backbone(method: str, device: torch.device) -> None:
    base = ARCHITECTURES["llama"]().to(device)
    with torch.no_grad():
        plain = run(base, device)
        model = attach(base, METHODS[method](), seed=0).eval()
        assert {p.device.type for p in adapter_parameters(model)} == {device.type}
        torch.testing.assert_close(run(model, device), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in SLOTS])
def test_merging_on_the_device(method: str, device: torch.device) -> None:
    model: Any = adapted(method).to(device)
    weights = [layer.get_base_layer().weight for layer in layers(model)]
    before = [weight.clone() for weight in weights]
    with torch.no_grad():
        expected = run(model, device)
        model.merge_adapter(safe_merge=True)
        torch.testing.assert_close(run(model, device), expected, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    assert all(torch.equal(weight, value) for weight, value in zip(weights, before, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_saved_on_the_device_loads_on_a_cpu(method: str, device: torch.device, tmp_path: Path) -> None:
    here: Any = adapted(method)
    expected = run(here, CPU)
    here.to(device).save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(ARCHITECTURES["llama"](), tmp_path, torch_device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(run(loaded.eval(), CPU), expected, rtol=1e-5, atol=1e-5)


def test_a_fit_is_that_of_a_cpu(
    tiny_arguments: list[str], on_device: list[str], device: torch.device, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda _: None)  # a run asks for TensorFloat-32
    records, items = [], []
    for name, flags in (("cpu", []), ("device", on_device)):
        folder = tmp_path / name
        assert main(["fit", *tiny_arguments, *flags, "--run.folder", str(folder), "--trainer.max_steps", "10"]) == 0
        records.append(json.loads((folder / "record.json").read_text()))
        items.append([json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()])
    here, there = records
    assert there["device"].startswith(device.type)
    assert there["metrics"]["train/loss"] == pytest.approx(here["metrics"]["train/loss"], rel=1e-3)
    assert there["metrics"]["cost/peak_memory_mb"] > 0
    for expected, found in zip(*items, strict=True):
        assert found["log_likelihood"] == pytest.approx(expected["log_likelihood"], rel=1e-3)

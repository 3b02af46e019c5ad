"""The tier of a CUDA device: skipped where there is none. SMOA_TEST_DEVICE=cpu runs it on a CPU, to try the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
KIND = os.environ.get("SMOA_TEST_DEVICE", "cuda")
if KIND not in ("cuda", "cpu"):
    raise pytest.UsageError(f"SMOA_TEST_DEVICE is {KIND!r}; it takes cuda or cpu")
NO_DEVICE = "torch finds no CUDA device (SMOA_TEST_DEVICE=cpu tries these tests on a CPU)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, and skip it where there is no device for it."""
    absent = KIND == "cuda" and not torch.cuda.is_available()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"))
            if absent:
                item.add_marker(pytest.mark.skip(reason=NO_DEVICE))


@pytest.fixture
def device() -> torch.device:
    """The device that is tested."""
    return torch.device(KIND)


@pytest.fixture
def on_device() -> list[str]:
    """Flags of a run on one such device."""
    return ["--trainer.accelerator", "gpu" if KIND == "cuda" else "cpu", "--trainer.devices", "1"]


@pytest.fixture(autouse=True)
def _full_float32() -> Iterator[None]:
    """Multiply float32 numbers in float32, so that a CPU's results are met; a run may set this otherwise."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)

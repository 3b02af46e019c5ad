"""The kernels against dense float64, under Triton's interpreter on a CPU, or on a GPU; skipped without Triton."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor

from smoa_lightning.adapters.smoa import kernels as choice
from smoa_lightning.adapters.smoa.functional import merged_weight, smoa_linear
from smoa_lightning.adapters.smoa.terms import Plan, block_indices

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
with pytest.MonkeyPatch.context() as patch:
    if DEVICE == "cpu":
        patch.setenv("TRITON_INTERPRET", "1")  # read when the kernels are defined, which is on import
    kernels = importlib.import_module("smoa_lightning.adapters.smoa.triton_kernels")

SHAPES = [(70, 130, 3), (64, 256, 16), (33, 300, 40), (200, 65, 100)]
# On a GPU the product of float32 numbers is in tf32; the interpreter cannot multiply bfloat16.
TOLERANCE = (
    {torch.float32: 1e-6, torch.float16: 1e-3} if DEVICE == "cpu" else {torch.float32: 1e-3, torch.bfloat16: 5e-3}
)
pytestmark = pytest.mark.filterwarnings("ignore")  # of the interpreter


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(dtype)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("rows", "cols", "rank"), SHAPES)
@pytest.mark.parametrize("include_base", [True, False])
def test_fill(rows: int, cols: int, rank: int, include_base: bool, dtype: torch.dtype) -> None:
    W, noise, L, R = (random(*s, dtype=dtype) for s in ((rows, cols), (rows, cols), (rows, rank), (rank, cols)))
    for M in (W, noise):
        out = torch.full_like(W, torch.nan)
        kernels.fill(out, W, M, L, R, 0.5, include_base)
        expected = 0.5 * M.double() * (L.double() @ R.double()) + (W.double() if include_base else 0)
        assert relative(out, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("rows", "cols", "rank"), SHAPES)
def test_thin_products(rows: int, cols: int, rank: int, dtype: torch.dtype) -> None:
    G, W, L, R = (random(*s, dtype=dtype) for s in ((rows, cols), (2 * rows, 3 * cols), (rows, rank), (rank, cols)))
    i, j = (
        torch.randperm(size, device=DEVICE)[: size // part].sort().values
        for size, part in ((2 * rows, 2), (3 * cols, 3))
    )
    M = W[i][:, j].contiguous()
    H = G.double() * M.double()
    for found in (kernels.thin_products(G, M, L, R), kernels.thin_products(G, W, L, R, i, j)):
        assert relative(found[0], H @ R.double().t()) < TOLERANCE[dtype]
        assert relative(found[1], L.double().t() @ H) < TOLERANCE[dtype]


@pytest.mark.parametrize("blocks", [False, True])
def test_a_layer_uses_them(blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs, gradients and the merged weight are those without the kernels, to rounding."""
    W = random(40, 24)
    plan = Plan((4,), True)
    A, B = random(4, 24), random(40, 4)
    if blocks:
        orders = [torch.randperm(size, device=DEVICE) for size in W.shape]
        rows, cols = (tuple(half.sort().values for half in order.chunk(2)) for order in orders)
        plan = Plan((2, 2), True, rows, cols, *block_indices(rows, cols, (2, 2)))
        A, B = random(2, 2, 12), random(2, 20, 2)
    x, g = random(30, 24), random(30, 40)
    monkeypatch.setattr("smoa_lightning.adapters.smoa.gradients.gather_pays", lambda *_: True)

    def results() -> list[Tensor]:
        leaves = [value.clone().requires_grad_() for value in (x, A, B)]
        y = smoa_linear(leaves[0], W, None, leaves[1], leaves[2], plan, 0.5)
        return [y.detach(), *torch.autograd.grad(y, leaves, g), merged_weight(A, B, W, plan, 0.5)]

    expected, calls = results(), []
    for module in ("terms", "gradients"):
        path = f"smoa_lightning.adapters.smoa.{module}.kernels_for"
        monkeypatch.setattr(path, lambda rank, *others: calls.append(rank) or kernels)
    for found, wanted in zip(results(), expected, strict=True):
        assert relative(found, wanted.double()) < TOLERANCE[torch.float32]
    assert len(calls) == (5 if blocks else 4)  # forward; backward of each block or the whole, and of x; merged


def test_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "IN_USE", True)
    half = torch.zeros(8, 8, dtype=torch.bfloat16, device=DEVICE)
    assert (choice.kernels_for(4, half) is kernels) == (DEVICE == "cuda")
    assert choice.kernels_for(4, half.float()) is None
    assert choice.kernels_for(4, half[:, :4]) is None
    assert choice.kernels_for(kernels.MOST_RANK + 1, half) is None

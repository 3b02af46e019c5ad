"""Dense products of structured matrices from their displacement, compared with products of scipy's matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from smoa_lightning.adapters.surm import displacement
from smoa_lightning.adapters.surm.displacement import diagonal_sums, low_displacement_product, toeplitz_product

Product = Callable[..., Tensor]
# product, batch of one factor, n, rows, cols
CASES: list[tuple[Product, tuple[int, ...], int, int, int]] = [
    (toeplitz_product, (), 1, 1, 1),
    (toeplitz_product, (), 2, 2, 2),
    (toeplitz_product, (), 5, 5, 3),
    (toeplitz_product, (2, 3), 7, 7, 4),
    (toeplitz_product, (), 70, 33, 70),
    (toeplitz_product, (), 101, 101, 101),
    (low_displacement_product, (1,), 1, 1, 1),
    (low_displacement_product, (1,), 2, 2, 2),
    (low_displacement_product, (2,), 5, 3, 5),
    (low_displacement_product, (2, 3, 4), 7, 4, 7),
    (low_displacement_product, (3,), 70, 70, 33),
    (low_displacement_product, (2,), 101, 101, 101),
]


@pytest.fixture(autouse=True)
def _never_small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(displacement, "MULTIPLIED_UP_TO", {False: 0, True: 0})


def reference(product: Product, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if product is toeplitz_product:
        return scipy.linalg.toeplitz(a) @ scipy.linalg.toeplitz(b)
    skew = [scipy.linalg.toeplitz(h, np.r_[h[0], -h[:0:-1]]) for h in b]
    return sum(scipy.linalg.circulant(g) @ S for g, S in zip(a, skew, strict=True))


def factors(case: tuple[Product, tuple[int, ...], int, int, int], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(*case[1], case[2], dtype=dtype, requires_grad=True) for _ in "ab"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, (case[0].__name__, *case[1:]))))
def test_products_are_those_of_scipy(case: tuple[Product, tuple[int, ...], int, int, int]) -> None:
    product, batch, n, rows, cols = case
    a, b = factors(case)
    found = product(a, b, rows, cols, torch.float64).detach()
    tiles = batch if product is toeplitz_product else batch[:-1]
    assert found.shape == (*tiles, rows, cols)
    flat = (-1, n) if product is toeplitz_product else (-1, batch[-1], n)
    pairs = zip(found.reshape(-1, rows, cols), a.detach().reshape(flat), b.detach().reshape(flat), strict=True)
    for matrix, first, second in pairs:
        expected = reference(product, first.numpy(), second.numpy())[:rows, :cols]
        np.testing.assert_allclose(matrix, expected, rtol=1e-11, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("case", [case for case in CASES if case[2] in (2, 5)], ids=lambda case: case[0].__name__)
def test_first_and_second_derivatives(case: tuple[Product, tuple[int, ...], int, int, int]) -> None:
    product, rows, cols = case[0], *case[3:]

    def dense(a: Tensor, b: Tensor) -> Tensor:
        return product(a, b, rows, cols, torch.float64)

    assert torch.autograd.gradcheck(dense, factors(case))
    assert torch.autograd.gradgradcheck(dense, factors(case))


@pytest.mark.parametrize("product", [toeplitz_product, low_displacement_product])
def test_single_precision_is_that_of_the_matrix_product(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums along diagonals of 700 entries; with autocast too, and bfloat16 factors are summed in float32."""
    case = (product, (4,) if product is low_displacement_product else (), 700, 700, 700)
    with torch.no_grad():
        a, b = factors(case, torch.float32)
        exact = product(a.double(), b.double(), 700, 700, torch.float64)

        def error(matrix: Tensor, of: Tensor = exact) -> float:
            return float((matrix.double() - of).norm() / of.norm())

        found = product(a, b, 700, 700, torch.float32)
        assert error(found) < 1e-6
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(product(a, b, 700, 700, torch.float32), found)
        a, b = a.bfloat16(), b.bfloat16()
        exact_half = product(a.double(), b.double(), 700, 700, torch.float64)
        half = product(a, b, 700, 700, torch.bfloat16)
        assert half.dtype == torch.bfloat16
        assert error(half, exact_half) < 2**-8  # one rounding
        monkeypatch.setattr(displacement, "MULTIPLIED_UP_TO", {False: 10**6, True: 10**6})
        assert error(product(a.double(), b.double(), 700, 700, torch.float64), exact_half) < 1e-12


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 5), (64, 64), (2, 65, 40), (40, 100)])
def test_diagonal_sums(shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    expected = x.detach().clone()
    for i in range(1, shape[-2]):
        expected[..., i, 1:] += expected[..., i - 1, :-1]
    found = diagonal_sums(x)
    torch.testing.assert_close(found.detach(), expected)
    weights = torch.randn_like(expected)
    found.backward(weights)
    transposed = weights.clone()
    for i in range(shape[-2] - 2, -1, -1):
        transposed[..., i, :-1] += transposed[..., i + 1, 1:]
    torch.testing.assert_close(x.grad, transposed)

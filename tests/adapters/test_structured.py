"""Structured products against dense matrices of scipy and numpy in float64, and against each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from smoa_lightning.adapters.surm import matrices, structured
from smoa_lightning.adapters.surm.convolution import convolve, fast_length
from smoa_lightning.adapters.surm.structured import factor_shapes, structured_matrix, structured_product

SIZES = [1, 2, 3, 5, 8, 13, 16]  # odd, even, prime
CASES = [  # structure, d_out, d_in, block size, displacement rank
    ("circulant", 6, 6, None, 1),
    ("circulant", 7, 5, None, 1),
    ("circulant", 4, 9, 3, 1),
    ("circulant", 5, 4, 1, 1),
    ("toeplitz", 6, 6, None, 1),
    ("toeplitz", 5, 8, None, 1),
    ("toeplitz", 7, 4, 3, 1),
    ("ldr", 6, 6, None, 1),
    ("ldr", 7, 5, None, 3),
    ("ldr", 5, 8, 4, 2),
    ("ldr", 3, 4, 1, 1),
    ("kronecker", 6, 6, None, 1),
    ("kronecker", 12, 18, None, 1),
    ("kronecker", 7, 10, 4, 1),
    ("kronecker", 3, 5, 4, 1),
    ("kronecker", 6, 4, 6, 1),  # one tile that is larger than the input, and one larger than the output
    ("kronecker", 4, 6, 6, 1),
    ("ldr", 6, 4, 6, 2),
]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def random(*shape: int, dtype: torch.dtype = torch.float64, grad: bool = False) -> Tensor:
    return torch.randn(*shape, dtype=dtype).requires_grad_(grad)


def factors(case: tuple[str, int, int, int | None, int], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    left, right = factor_shapes(*case)  # type: ignore[arg-type]
    return random(*left, dtype=dtype, grad=True), random(*right, dtype=dtype, grad=True)


def skew(h: np.ndarray) -> np.ndarray:
    """scipy's Toeplitz matrix with first column h and first row h_0, -h_{n-1}, ..., -h_1."""
    return scipy.linalg.toeplitz(h, np.r_[h[0], -h[:0:-1]])


REFERENCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circulant": lambda b, a: scipy.linalg.circulant(b * a),
    "toeplitz": lambda b, a: scipy.linalg.toeplitz(b) @ scipy.linalg.toeplitz(a),
    "ldr": lambda G, H: sum(scipy.linalg.circulant(g) @ skew(h) for g, h in zip(G, H, strict=True)),
    "kronecker": np.kron,
}


@pytest.mark.parametrize("n", SIZES)
def test_dense_matrices_are_those_of_scipy(n: int) -> None:
    c = random(3, n)
    for ours, theirs in (
        (matrices.circulant, scipy.linalg.circulant),
        (matrices.toeplitz, scipy.linalg.toeplitz),
        (matrices.skew_circulant, skew),
    ):
        for matrix, column in zip(ours(c), c.numpy(), strict=True):
            np.testing.assert_array_equal(matrix, theirs(column))
        np.testing.assert_array_equal(ours(c, rows=1)[0], ours(c)[0, :1])


@pytest.mark.parametrize("n", SIZES)
def test_fast_products(n: int) -> None:
    """Through FFT, of one tile; a first unit vector as one factor leaves the matrix of the other one."""
    c, d, x = random(n), random(n), random(2, 4, n)
    unit = torch.eye(n, dtype=torch.float64)[0]
    for structure, left, right, matrix in (
        ("circulant", c, torch.ones_like(c), scipy.linalg.circulant(c.numpy())),
        ("ldr", unit, c, skew(c.numpy())),
        ("toeplitz", c, unit, scipy.linalg.toeplitz(c.numpy())),
        ("ldr", c, d, REFERENCES["ldr"](c[None].numpy(), d[None].numpy())),
    ):
        tile = (1, 1, 1, n) if structure == "ldr" else (1, 1, n)
        product = structured_product(structure, left.view(tile), right.view(tile), x, n, "fft")
        np.testing.assert_allclose(product, x.numpy() @ matrix.T, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("k", "r", "s", "width"), [(1, 1, 1, 1), (3, 2, 4, 5), (4, 4, 4, 4)])
def test_kronecker_product(k: int, r: int, s: int, width: int) -> None:
    B, A, x = random(k, r), random(s, width), random(3, 2, r * width)
    expected = x.numpy() @ np.kron(B.numpy(), A.numpy()).T
    np.testing.assert_allclose(structured.kronecker_product(B, A, x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_updates_of_tiles(case: tuple[str, int, int, int | None, int]) -> None:
    """The whole matrix is the tiles of scipy and numpy, side by side and cropped; both paths multiply with it."""
    structure, out_features, in_features, block, _ = case
    left, right = factors(case)
    tiles = [
        [REFERENCES[structure](b, a) for b, a in zip(*row, strict=True)]
        for row in zip(left.detach().numpy(), right.detach().numpy(), strict=True)
    ]
    padded = np.block(tiles)
    if block is not None:
        assert padded.shape == (-(-out_features // block) * block, -(-in_features // block) * block)
    dense = padded[:out_features, :in_features]
    np.testing.assert_allclose(
        structured_matrix(structure, left, right, out_features, in_features).detach(), dense, rtol=1e-12, atol=1e-12
    )
    x, grad = random(2, 3, in_features, grad=True), random(2, 3, out_features)
    gradients = []
    for path in ("fft", "dense"):
        y = structured_product(structure, left, right, x, out_features, path)
        np.testing.assert_allclose(y.detach(), x.detach().numpy() @ dense.T, rtol=1e-11, atol=1e-11)
        gradients.append(torch.autograd.grad(y, (left, right, x), grad))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(gradients[0][2], grad.numpy() @ dense, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("path", ["fft", "dense"])
@pytest.mark.parametrize(
    "case",
    [
        ("circulant", 5, 4, None, 1),
        ("circulant", 3, 5, 2, 1),
        ("toeplitz", 4, 4, None, 1),
        ("toeplitz", 3, 4, 2, 1),
        ("ldr", 5, 4, None, 2),
        ("ldr", 4, 3, 2, 1),
        ("kronecker", 4, 6, None, 1),
    ],
    ids=str,
)
def test_gradients(case: tuple[str, int, int, int | None, int], path: str) -> None:
    structure, out_features, in_features = case[:3]
    left, right = factors(case)

    def product(left: Tensor, right: Tensor, x: Tensor) -> Tensor:
        return structured_product(structure, left, right, x, out_features, path)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(product, (left, right, random(2, in_features, grad=True)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision(case: tuple[str, int, int, int | None, int]) -> None:
    """The result has the dtype of x, the gradients that of their factors, and both are as near as the dtype allows."""
    structure, out_features, in_features = case[:3]
    left, right = factors(case, torch.float32)
    x = random(32, in_features, dtype=torch.bfloat16, grad=True)
    exact = structured_matrix(structure, left.double(), right.double(), out_features, in_features)
    expected = x.detach().double() @ exact.T
    grad = random(32, out_features, dtype=torch.bfloat16)
    expected.backward(grad.double())
    wanted = left.grad.clone()
    for path in ("fft", "dense"):
        left.grad = right.grad = x.grad = None
        y = structured_product(structure, left, right, x, out_features, path)
        assert y.dtype == torch.bfloat16
        y.backward(grad)
        assert (left.grad.dtype, right.grad.dtype, x.grad.dtype) == (torch.float32, torch.float32, torch.bfloat16)
        for found, reference in ((y.detach(), expected.detach()), (left.grad, wanted)):
            error = (found.double() - reference).norm() / reference.norm()
            assert error < (0.03 if "kronecker" in case or path == "dense" else 0.005), path  # GEMMs round factors


def test_single_precision_of_long_transforms() -> None:
    for structure in ("circulant", "toeplitz", "ldr"):
        case = (structure, 511, 384, None, 2)
        left, right = factors(case, torch.float32)
        x = random(4, 384, dtype=torch.float32)
        with torch.no_grad():
            exact = structured_matrix(structure, left.double(), right.double(), 511, 384)
            y = structured_product(structure, left, right, x, 511, "fft")
        reference = x.double() @ exact.T
        assert (y.double() - reference).norm() / reference.norm() < 1e-6


@pytest.mark.parametrize(("n", "terms"), [(7, 1), (7, 3), (12, 2), (12, 5)])
def test_displacement_rank(n: int, terms: int) -> None:
    """Z_1 M - M Z_{-1} has rank m for m random terms (at most m for others), and full rank for other matrices."""
    left, right = (factor[0, 0].detach() for factor in factors(("ldr", n, n, None, terms)))
    M = structured_matrix("ldr", left[None, None], right[None, None], n, n)
    shift = torch.diag(torch.ones(n - 1, dtype=M.dtype), -1)
    Z, Z_negative = shift.clone(), shift.clone()
    Z[0, -1], Z_negative[0, -1] = 1, -1
    displacement = Z @ M - M @ Z_negative
    assert torch.linalg.matrix_rank(displacement, atol=1e-9) == terms
    torch.testing.assert_close(displacement, 2 * left.T @ right.flip(-1))
    assert torch.linalg.matrix_rank(M) == n
    other = random(n, n)
    assert torch.linalg.matrix_rank(Z @ other - other @ Z_negative, atol=1e-9) == n


@pytest.mark.parametrize(("out_features", "in_features"), [(16, 16), (12, 18), (24, 36), (20, 33), (12, 12)])
def test_kronecker_rank(out_features: int, in_features: int) -> None:
    """The default divisor gives the largest rank that any does; every divisor the same number of parameters."""
    common = [r for r in range(1, 37) if out_features % r == 0 and in_features % r == 0]
    ranks, counts = {}, set()
    for r in common:
        left, right = (random(*shape) for shape in factor_shapes("kronecker", out_features, in_features, None, 1, r))
        ranks[r] = int(torch.linalg.matrix_rank(structured_matrix("kronecker", left, right, out_features, in_features)))
        assert ranks[r] == structured.kronecker_rank_bound(out_features, in_features, r)
        counts.add(left.numel() + right.numel())
    assert counts == {out_features + in_features}
    chosen = structured.full_rank_divisor(out_features, in_features)
    assert ranks[chosen] == max(ranks.values())
    assert chosen == min(r for r in common if ranks[r] == ranks[chosen])


def test_contraction_over_tiles() -> None:
    """Einsum and elementwise contraction agree, for every pair of letters that is used and sizes 1 and above."""
    for letters in (("pq", "tq", "tp"), ("pq", "tq", "tpq"), ("pqm", "tpqm", "tp"), ("", "t", "t")):
        for sizes in itertools.product((1, 3), repeat=3):
            size = {"t": 5, **dict(zip("pqm", sizes, strict=True))}
            kernel = random(*(size[i] for i in letters[0]), 6)
            x = random(*(size[i] for i in letters[1]), 6)
            equation = f"{letters[0]}ij,{letters[1]}j->{letters[2]}i"
            expected = torch.einsum(equation, matrices.circulant(kernel), x)
            torch.testing.assert_close(convolve(kernel, x, letters), expected)


def test_fast_length() -> None:
    exponents = itertools.product(range(14), range(9), range(6), range(5))
    smooth = sorted(2**a * 3**b * 5**c * 7**d for a, b, c, d in exponents)
    for n in [*range(1, 300), 1151, 4095, 8191]:
        assert fast_length(n) == next(length for length in smooth if length >= n)


@pytest.mark.parametrize("structure", ["circulant", "toeplitz", "ldr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_path_by_size(structure: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small products are dense, large ones go through FFT; more tokens and half precision favour the dense one."""
    calls = []
    monkeypatch.setattr(structured, "convolve", lambda *a, **k: calls.append(1) or convolve(*a, **k))
    for size, fast in ((16, False), (2048, True)):
        shapes = factor_shapes(structure, size, size)  # type: ignore[arg-type]
        left, right = (torch.zeros(shape) for shape in shapes)
        calls.clear()
        structured_product(structure, left, right, torch.zeros(1, size, dtype=dtype), size)
        assert bool(calls) == fast
    few, many = structured.FFT_FROM[structure, dtype == torch.bfloat16]
    assert few <= many
    assert structured.FFT_FROM[structure, False][1] <= structured.FFT_FROM[structure, True][1]
    if structure == "ldr":  # its transforms are m + 1 per token, the dense matrix is one
        x = torch.zeros(1024, many, dtype=dtype)
        one, four = (torch.zeros(factor_shapes("ldr", many, many, None, m)[0]) for m in (1, 4))
        assert structured.fft_is_faster("ldr", one, x, many)
        assert not structured.fft_is_faster("ldr", four, x, many)
        assert not structured.fft_is_faster("ldr", one, x, many // 2)  # half of the dense matrix is left out

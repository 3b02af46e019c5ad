r"""Structured matrices of SURM (arXiv 2406.17740): their products with a batch of vectors, and their dense forms.

Indices start at 0, n is the size, and vectors are first columns:

* circulant ``C(c)_ij = c_{(i-j) mod n}``; skew-circulant ``S(h)_ij = h_{i-j}`` for i >= j, else ``-h_{n+i-j}``;
  symmetric Toeplitz ``T(t)_ij = t_{|i-j|}``;
* low displacement rank: ``M = sum_{i<m} C(g_i) S(h_i)``. Z_f is the down-shift with upper right corner f, J the
  reversal. Then ``Z_1 M - M Z_{-1} = 2 sum_i g_i (J h_i)^T`` has a displacement rank of at most m (Pan, Structured
  Matrices and Polynomials, 2001, chapter 4; Sindhwani, Sainath and Kumar, arXiv 1510.01722, section 3);
* Kronecker ``B (x) A`` with B (n_out/r x r) and A (r x n_in/r).

An update of shape (d_out, d_in) consists of R x Q tiles. Each tile (p, q) has a separate structure of size b, and tiles
at the border are cropped. Without tiling R = Q = 1 and b = max(d_out, d_in): the input is padded with zeros, the output
is cropped. Kronecker then needs no padding. ``left`` and ``right`` are the factors of all tiles:

================= ======================= ======================= ========================
structure         tile                    left                    right
================= ======================= ======================= ========================
circulant         C(left * right)         (R, Q, b)               (R, Q, b)
toeplitz          T(left) T(right)        (R, Q, b)               (R, Q, b)
toeplitz_hadamard T(left * right)         (R, Q, b)               (R, Q, b)
ldr               sum C(left) S(right)    (R, Q, m, b)            (R, Q, m, b)
kronecker         left (x) right          (R, Q, b_out/r, r)      (R, Q, r, b_in/r)
================= ======================= ======================= ========================

All functions here depend on tensors only.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from smoa_lightning.adapters.surm.convolution import convolve, fast_length
from smoa_lightning.adapters.surm.displacement import low_displacement_product, toeplitz_product
from smoa_lightning.adapters.surm.matrices import circulant, embedded, toeplitz

Structure = Literal["circulant", "toeplitz", "toeplitz_hadamard", "kronecker", "ldr"]
Path = Literal["fft", "dense"]

# (structure, half precision) -> smallest size at which FFT is faster, for few and for many tokens. Measured: forward
# and backward on one thread of an x86 server CPU with fast bfloat16 GEMMs (AMX), torch 2.13, sizes 8 to 2048, 64 and
# 768 tokens. Time of the dense path divided by that of FFT at 768 tokens, n = 576 and 1536: circulant 2.2 and 6.8 in
# float32, 0.7 and 1.5 in bfloat16; toeplitz 1.4, 5.8, 0.5, 1.6; ldr (m = 1) 2.2, 7.4, 0.8, 2.4. The chosen path was
# never slower by more than a quarter, and with AVX2 only, in float32, by more than a half;
# benchmarks/structured_products.py prints all values. On a GPU, and in bfloat16 without fast GEMMs, the limits are
# correct in order of magnitude only. Both paths give the same result.
MANY_TOKENS = 192
FFT_FROM: dict[tuple[str, bool], tuple[int, int]] = {
    ("circulant", False): (192, 192),
    ("circulant", True): (256, 896),
    ("toeplitz", False): (192, 448),
    ("toeplitz", True): (320, 1152),
    ("toeplitz_hadamard", False): (256, 448),
    ("toeplitz_hadamard", True): (320, 1536),
    ("ldr", False): (192, 384),
    ("ldr", True): (320, 768),
}


# ------------------------------------------------------------------------------------------------------- fast products


def kronecker_product(B: Tensor, A: Tensor, x: Tensor) -> Tensor:
    """Return ``(B (x) A) x`` for B (k, r), A (s, l) and x of shape (..., r l): ``B X A^T`` with x as X (r, l)."""
    X = x.reshape(*x.shape[:-1], B.shape[1], A.shape[1])
    y = F.linear(F.linear(X, A.to(x.dtype)).transpose(-1, -2), B.to(x.dtype))
    return y.transpose(-1, -2).flatten(-2)


# ------------------------------------------------------------------------------------------------------- whole updates


def tile_size(out_features: int, in_features: int, block_size: int | None) -> int:
    """Return b: the block size, or max(d_out, d_in) without tiling."""
    return max(out_features, in_features) if block_size is None else block_size


def full_rank_divisor(out_features: int, in_features: int) -> int:
    """Return the common divisor r with the largest possible rank of ``B (x) A``, the smallest of several.

    The rank is rank(B) rank(A) <= min(n_out/r, r) min(r, n_in/r). The number of parameters, n_in + n_out, does not
    depend on r. For n_in = n_out = n, r is the nearest divisor of n below or above the square root of n.

    >>> full_rank_divisor(64, 64), full_rank_divisor(1536, 576), full_rank_divisor(7, 20)
    (8, 24, 1)
    """
    common = math.gcd(out_features, in_features)
    divisors = [r for r in range(1, common + 1) if common % r == 0]
    return max(divisors, key=lambda r: (kronecker_rank_bound(out_features, in_features, r), -r))


def kronecker_rank_bound(out_features: int, in_features: int, r: int) -> int:
    """Return ``min(n_out/r, r) min(r, n_in/r)``, the largest possible rank of ``B (x) A``."""
    return min(out_features // r, r) * min(r, in_features // r)


def factor_shapes(
    structure: Structure,
    out_features: int,
    in_features: int,
    block_size: int | None = None,
    displacement_rank: int = 1,
    kronecker_rank: int | None = None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of ``left`` and ``right`` for an update of shape (d_out, d_in).

    >>> factor_shapes("circulant", 20, 33), factor_shapes("ldr", 20, 33, block_size=8, displacement_rank=2)
    (((1, 1, 33), (1, 1, 33)), ((3, 5, 2, 8), (3, 5, 2, 8)))
    """
    b = tile_size(out_features, in_features, block_size)
    grid = (-(-out_features // b), -(-in_features // b))
    if structure == "kronecker":
        out_size, in_size = (out_features, in_features) if block_size is None else (b, b)
        r = full_rank_divisor(out_size, in_size) if kronecker_rank is None else kronecker_rank
        return (*grid, out_size // r, r), (*grid, r, in_size // r)
    shape = (*grid, displacement_rank, b) if structure == "ldr" else (*grid, b)
    return shape, shape


def structured_matrix(
    structure: Structure,
    left: Tensor,
    right: Tensor,
    out_features: int,
    in_features: int,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return the dense update of shape (d_out, d_in).

    Args:
        structure: Structure of the tiles.
        left: Factors, see the module's docstring.
        right: Factors.
        out_features: d_out.
        in_features: d_in.
        dtype: Dtype of the result and of the multiplied matrices; absent means the dtype of the factors.
    """
    dtype = left.dtype if dtype is None else dtype
    if structure in ("circulant", "toeplitz_hadamard"):
        left = left * right  # rounded after the product
    rows, cols = left.shape[:2]
    if structure == "kronecker":
        tiles = torch.einsum("pqoj,pqsk->pqosjk", left.to(dtype), right.to(dtype)).flatten(4, 5).flatten(2, 3)
        height, width = tiles.shape[-2:]
    else:
        b = left.shape[-1]
        height, width = (b if rows > 1 else out_features), (b if cols > 1 else in_features)
        if structure == "circulant":
            tiles = circulant(left.to(dtype), height, width)
        elif structure == "toeplitz_hadamard":
            tiles = toeplitz(left.to(dtype), height, width)
        elif structure == "toeplitz":
            tiles = toeplitz_product(left, right, height, width, dtype)
        else:
            tiles = low_displacement_product(left, right, height, width, dtype)
    return tiles.transpose(1, 2).reshape(rows * height, cols * width)[:out_features, :in_features]


def structured_product(
    structure: Structure, left: Tensor, right: Tensor, x: Tensor, out_features: int, path: Path | None = None
) -> Tensor:
    """Return ``x D^T`` of shape (..., d_out) for x of shape (..., d_in), in the dtype of x.

    The product uses FFT in float32 (float64 for float64), or the dense matrix and one GEMM in the dtype of x. The
    faster path for this size, as measured, is chosen. Kronecker always reshapes x instead.

    Args:
        structure: Structure of the tiles.
        left: Factors, see the module's docstring.
        right: Factors.
        x: Vectors.
        out_features: d_out.
        path: Force one of the two paths.
    """
    flat = x.reshape(-1, x.shape[-1])
    if structure == "kronecker":
        y = _kronecker_tiles(left, right, flat, out_features)
    else:
        if path is None:
            path = "fft" if fft_is_faster(structure, left, flat, out_features) else "dense"
        if path == "dense":
            y = F.linear(flat, structured_matrix(structure, left, right, out_features, x.shape[-1], x.dtype))
        else:
            wide = flat.to(torch.promote_types(x.dtype, torch.float32))  # FFT does not support bfloat16
            y = _fft_tiles(structure, left, right, wide)[:, :out_features].to(x.dtype)
    return y.reshape(*x.shape[:-1], out_features)


def _tiled(x: Tensor, count: int, size: int) -> Tensor:
    """Reshape (T, d_in) to (T, Q, b), padded with zeros."""
    gap = count * size - x.shape[-1]
    return (F.pad(x, (0, gap)) if gap else x).view(x.shape[0], count, size)


def _kronecker_tiles(left: Tensor, right: Tensor, x: Tensor, out_features: int) -> Tensor:
    rows, cols, r, width = right.shape
    X = _tiled(x, cols, r * width)
    if rows == cols == 1:
        return kronecker_product(left[0, 0], right[0, 0], X[:, 0])[:, :out_features]
    X = X.unflatten(-1, (r, width))
    z = torch.einsum("tqjk,pqsk->tqjps", X, right.to(x.dtype))
    return torch.einsum("tqjps,pqoj->tpos", z, left.to(x.dtype)).flatten(1)[:, :out_features]


def _fft_tiles(structure: Structure, left: Tensor, right: Tensor, x: Tensor) -> Tensor:
    b = left.shape[-1]
    x = _tiled(x, left.shape[1], b)
    if structure == "circulant":
        return convolve(left * right, x, ("pq", "tq", "tp")).flatten(1)
    if structure == "toeplitz_hadamard":
        kernel = embedded(left * right, fast_length(2 * b - 1))
        return convolve(kernel, x, ("pq", "tq", "tp"), keep=b).flatten(1)
    if structure == "toeplitz":
        length = fast_length(2 * b - 1)
        z = convolve(embedded(right, length), x, ("pq", "tq", "tpq"), keep=b)
        return convolve(embedded(left, length), z, ("pq", "tpq", "tp"), keep=b).flatten(1)
    z = convolve(right, x, ("pqm", "tq", "tpqm"), negacyclic=True)
    return convolve(left, z, ("pqm", "tpqm", "tp")).flatten(1)


def fft_is_faster(structure: Structure, left: Tensor, x: Tensor, out_features: int) -> bool:
    """Whether FFT is faster than the dense matrix for a product with x of shape (T, d_in) (see ``FFT_FROM``)."""
    few, many = FFT_FROM[structure, x.dtype.itemsize == 2]
    limit: float = few if x.shape[0] < MANY_TOKENS else many
    if structure == "ldr" and x.shape[0] >= MANY_TOKENS:
        limit *= (1 + left.shape[-2]) / 2  # m + 1 transforms of a token and back, where the dense path has one product
    rows, cols, b = left.shape[0], left.shape[1], left.shape[-1]
    if rows == cols == 1:  # FFT has the length b of the padded square; the dense matrix is cropped
        return min(b, out_features, x.shape[-1]) >= limit
    if structure not in ("circulant", "toeplitz_hadamard"):
        return b >= limit
    return b >= 16 and b * math.sqrt(rows * cols) >= limit  # tiles share their transforms, so the whole size decides

r"""Both sides of MoRA's square matrix M (r_hat x r_hat): compression and decompression (arXiv 2405.12130).

Inputs are split into ``n = ceil(d_in / r_hat)`` pieces of size r_hat. If d_in is not a multiple of r_hat, the last
piece is completed with the first coordinates: position p holds ``x[p mod d_in]``.

* sharing (equation 6): ``compress(x)_k = sum_{c<n} x[(c r_hat + k) mod d_in]``, ``decompress(z)_o = z[o mod r_hat]``.
  The update has at most rank r_hat.
* rotation (equation 9): piece c becomes ``M R_c x_c``. The output is the pieces one after another, cut at d_out, or
  repeated from the start up to d_out. R_c rotates the coordinates k and k + r_hat / 2 by the angle
  ``c theta^(-2 k / r_hat)``, theta = 10000, like rotary position embedding at position c. If d_in > d_out, pieces
  beyond ``ceil(d_out / r_hat)`` have no output, so that the update ignores these inputs, as in the authors' code.

Both types are linear in x, so each is an additive update D of shape (d_out, d_in).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

THETA = 10000.0


def square_size(r: int, out_features: int, in_features: int, even: bool = False, nearest: bool = False) -> int:
    """Return r_hat, the size of M: ``sqrt((d_in + d_out) r)`` rounded down, at most min(d_out, d_in).

    Only ``even=True`` rounds it down to an even number, and only ``nearest=True`` rounds the root to the nearest
    integer.

    >>> square_size(8, 64, 64), square_size(8, 65, 65), square_size(8, 65, 65, even=True), square_size(8, 9, 64)
    (32, 32, 32, 9)
    >>> square_size(1, 15, 15), square_size(1, 15, 15, nearest=True), square_size(1, 15, 16, True, nearest=True)
    (5, 5, 6)
    """
    parameters = (in_features + out_features) * r
    size = math.isqrt(parameters)
    if nearest and parameters > size * (size + 1):  # equal to root > size + 1/2, since both sides are integers
        size += 1
    size = min(size, in_features, out_features)
    return size // 2 * 2 if even else size


def sharing(x: Tensor, M: Tensor, out_features: int) -> Tensor:
    """Return decompress(M compress(x)) of the sharing type.

    Args:
        x: Inputs of shape (..., d_in).
        M: Square matrix of shape (r_hat, r_hat), in the dtype of x.
        out_features: d_out.

    Returns:
        Outputs of shape (..., d_out).
    """
    return _repeat(F.linear(_pieces(x, M.shape[0]).sum(-2), M), out_features)


def rotation(x: Tensor, M: Tensor, out_features: int) -> Tensor:
    """Return decompress(M compress(x)) of the rotation type; arguments and result as in :func:`sharing`."""
    size = M.shape[0]
    pieces = _pieces(x, size)[..., : -(-out_features // size), :]  # further pieces have no output
    rotated = rotate(pieces, torch.arange(pieces.shape[-2], device=x.device))
    return _repeat(F.linear(rotated, M).flatten(-2), out_features)


def sharing_update(M: Tensor, out_features: int, in_features: int) -> Tensor:
    """Return the update D of the sharing type, of shape (d_out, d_in), in the dtype of M."""
    size = M.shape[0]
    wide = M.repeat(1, -(-in_features // size))
    return _repeat(_fold(wide, in_features).t(), out_features).t().contiguous()


def rotation_update(M: Tensor, out_features: int, in_features: int) -> Tensor:
    """Return the update D of the rotation type, of shape (d_out, d_in), in the dtype of M."""
    size = M.shape[0]
    pieces = min(-(-in_features // size), -(-out_features // size))
    positions = torch.arange(pieces, device=M.device)
    # Row i of M R_c is R_c^T applied to row i of M: a rotation by the opposite angle.
    blocks = rotate(M.expand(pieces, size, size).transpose(0, 1), -positions).transpose(0, 1)
    layout = torch.block_diag(*blocks)  # (pieces * r_hat, pieces * r_hat)
    missing = max(0, in_features - layout.shape[1])
    folded = _fold(F.pad(layout, (0, missing)), in_features)
    return _repeat(folded.t(), out_features).t().contiguous()


def rotate(pieces: Tensor, positions: Tensor) -> Tensor:
    """Rotate piece c by ``positions[c]`` times the angles of rotary position embedding (RoPE, arXiv 2104.09864).

    Args:
        pieces: Shape (..., n, r_hat) with even r_hat; coordinate k is paired with k + r_hat / 2.
        positions: Shape (n,).

    Returns:
        The rotated pieces, of the same shape and dtype.
    """
    half = pieces.shape[-1] // 2
    exponents = torch.arange(half, device=pieces.device, dtype=torch.float64 if pieces.is_cpu else torch.float32) / half
    angles = torch.outer(positions.to(exponents.dtype), THETA**-exponents)
    cos, sin = angles.cos().to(pieces.dtype), angles.sin().to(pieces.dtype)
    first, second = pieces[..., :half], pieces[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _pieces(x: Tensor, size: int) -> Tensor:
    """Split inputs (..., d_in) into pieces (..., n, size)."""
    missing = -x.shape[-1] % size
    if missing:
        x = torch.cat([x, x[..., :missing]], -1)
    rows: Tensor = x.unflatten(-1, (-1, size))
    return rows


def _repeat(z: Tensor, length: int) -> Tensor:
    """Repeat the last dimension, or cut it, so that it has a given length."""
    times = -(-length // z.shape[-1])
    if times > 1:
        z = torch.cat([z] * times, -1)
    return z[..., :length]


def _fold(layout: Tensor, in_features: int) -> Tensor:
    """Add the columns of repeated coordinates to the columns of their first occurrence."""
    folded = layout[:, :in_features].clone()
    surplus = layout[:, in_features:]
    folded[:, : surplus.shape[1]] += surplus
    return folded

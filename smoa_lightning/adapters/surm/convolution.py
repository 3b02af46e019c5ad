r"""Cyclic and negacyclic convolution of real vectors through FFT, batched, with a hand-written gradient.

Both are diagonal in a transform F: ``k * x = F^{-1}(F(k) F(x))``. The gradients are
``dx = F^{-1}(conj(F(k)) F(g))`` and ``dk = F^{-1}(sum conj(F(x)) F(g))``, because the transpose of a (skew-)circulant
matrix has the conjugate spectrum. Autograd through ``rfft`` would run full complex transforms instead.

F is ``rfft`` for cyclic convolution. For negacyclic convolution it is the twisted transform
``X_k = sum_j x_j eta_j e^{-2 pi i jk/n}`` with ``eta_j = e^{-i pi j/n}``, which turns the skew-circulant into a
circulant. For real x its spectrum is symmetric, ``X_{n-1-k} = conj(X_k)``, so that for even n the even k are enough.
They are a complex transform of half the length: of ``(x_j - i x_{j+n/2}) eta_j``, j < n/2.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from smoa_lightning.adapters.tuner.differentiation import differentiable_once

Letters = tuple[str, str, str]


@functools.cache
def fast_length(n: int) -> int:
    """Return the smallest length >= n without a prime factor above 7, for which FFT is fast.

    >>> [fast_length(n) for n in (1, 11, 97, 1151)]
    [1, 12, 98, 1152]
    """
    while True:
        rest = n
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def convolve(kernel: Tensor, x: Tensor, letters: Letters, negacyclic: bool = False, keep: int | None = None) -> Tensor:
    """Convolve the last dimensions of kernel and x, and sum over batch dimensions given by letters.

    Args:
        kernel: Shape (*batch, L); L is the length of the convolution.
        x: Shape (*batch, n) with n <= L, padded with zeros; n = L if ``negacyclic``.
        letters: Names of the batch dimensions of kernel, x and result, as in einsum: ("pq", "tq", "tp") sums over q.
            Every letter occurs in at least two of the three.
        negacyclic: Negate the terms that wrap around.
        keep: Number of leading entries of the result to return; all if absent.

    Returns:
        Shape (*batch, keep), in the dtype of x; computed in float32, or in float64 for x in float64.
    """
    kept = kernel.shape[-1] if keep is None else keep
    y: Tensor = _Convolution.apply(kernel, x, letters, negacyclic, kept)  # type: ignore[no-untyped-call]
    return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Tensor, x: Tensor, letters: Letters, negacyclic: bool, keep: int) -> Tensor:
        length, dtype = kernel.shape[-1], torch.promote_types(x.dtype, torch.float32)
        K = _transform(kernel.to(dtype), length, negacyclic)
        X = _transform(x.to(dtype), length, negacyclic)
        ctx.save_for_backward(K, X)
        ctx.letters, ctx.negacyclic, ctx.length, ctx.n = letters, negacyclic, length, x.shape[-1]
        ctx.kernel_dtype, ctx.x_dtype = kernel.dtype, x.dtype
        in_kernel, in_x, in_y = letters
        return _inverse(_contract(X, K, in_x, in_kernel, in_y), length, negacyclic)[..., :keep].to(x.dtype)

    @staticmethod
    @differentiable_once("SURM")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        K, X = ctx.saved_tensors
        in_kernel, in_x, in_y = ctx.letters
        G = _transform(grad.to(K.real.dtype), ctx.length, ctx.negacyclic)
        grad_kernel = grad_x = None
        if ctx.needs_input_grad[0]:
            spectrum = _contract(G, X.conj(), in_y, in_x, in_kernel)
            grad_kernel = _inverse(spectrum, ctx.length, ctx.negacyclic).to(ctx.kernel_dtype)
        if ctx.needs_input_grad[1]:
            spectrum = _contract(G, K.conj(), in_y, in_kernel, in_x)
            grad_x = _inverse(spectrum, ctx.length, ctx.negacyclic)[..., : ctx.n].to(ctx.x_dtype)
        return grad_kernel, grad_x, None, None, None


def _contract(a: Tensor, b: Tensor, in_a: str, in_b: str, in_y: str) -> Tensor:
    """Multiply spectra and sum over the letters that the result lacks; elementwise unless a GEMM is faster."""
    sizes = dict(zip(in_a, a.shape, strict=False)) | dict(zip(in_b, b.shape, strict=False))
    only_a = math.prod(sizes[i] for i in in_a if i not in in_b)
    only_b = math.prod(sizes[i] for i in in_b if i not in in_a)
    if only_a > 1 and only_b > 1:
        return torch.einsum(f"{in_a}f,{in_b}f->{in_y}f", a, b)
    summed = "".join(i for i in sizes if i not in in_y)
    product = torch.einsum(f"{in_a}f,{in_b}f->{summed}{in_y}f", a, b)
    return product.sum(tuple(range(len(summed)))) if summed else product


def _twist(length: int, count: int, like: Tensor) -> Tensor:
    angle = torch.arange(count, dtype=torch.float64, device=like.device) * (-math.pi / length)
    return torch.polar(torch.ones_like(angle), angle).to(like.dtype.to_complex())


def _transform(x: Tensor, length: int, negacyclic: bool) -> Tensor:
    half = length // 2
    spectrum: Tensor
    if not negacyclic:
        spectrum = torch.fft.rfft(x, length)
    elif length % 2:
        spectrum = torch.fft.fft(x * _twist(length, length, x))
    else:
        spectrum = torch.fft.fft(torch.complex(x[..., :half], -x[..., half:]) * _twist(length, half, x))
    return spectrum


def _inverse(spectrum: Tensor, length: int, negacyclic: bool) -> Tensor:
    values: Tensor
    if not negacyclic:
        values = torch.fft.irfft(spectrum, length)
        return values
    values = torch.fft.ifft(spectrum)
    values = values * _twist(length, values.shape[-1], values.real).conj()
    return values.real if length % 2 else torch.cat([values.real, -values.imag], -1)

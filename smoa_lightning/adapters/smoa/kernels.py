"""Whether the passes over a frozen weight use the kernels of :mod:`smoa_lightning.adapters.smoa.triton_kernels`."""

from __future__ import annotations

import functools
import importlib.util
from types import ModuleType

import torch
from torch import Tensor

IN_USE = False  # until benchmarks/gpu_kernels.py has shown on a GPU that they are faster


def kernels_for(rank: int, *matrices: Tensor) -> ModuleType | None:
    """Return the module of the kernels if they take these matrices and factors of this rank, else None.

    They take contiguous matrices in 16 bits on a CUDA device.
    """
    if not IN_USE or not all(matrix.is_cuda and matrix.is_contiguous() for matrix in matrices):
        return None
    sixteen_bits = {matrix.dtype for matrix in matrices} <= {torch.bfloat16, torch.float16}
    kernels = _kernels() if sixteen_bits else None
    return kernels if kernels is not None and rank <= kernels.MOST_RANK else None


@functools.cache
def _kernels() -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None
    from smoa_lightning.adapters.smoa import triton_kernels

    return triton_kernels

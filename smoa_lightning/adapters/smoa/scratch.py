"""Dense scratch memory shared by all layers, so that no layer pays page faults for its own W + s D."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor


class _Scratch(threading.local):
    """One buffer for each device, stream, dtype and slot of a thread, as large as the largest layer so far.

    No user keeps a buffer beyond one call, and nothing that could run another layer (reading ``saved_tensors`` does,
    under gradient checkpointing) may happen between filling and using it. Threads never share: backward of CUDA runs
    in its own.
    """

    def __init__(self) -> None:
        self.buffers: dict[tuple[Any, ...], Tensor] = {}


_scratch = _Scratch()


def scratch_like(weight: Tensor, dtype: torch.dtype, slot: int) -> Tensor:
    """Uninitialised matrix with the shape, device and orientation of a weight; valid until the next call for its slot.

    Args:
        weight: Matrix of shape (rows, cols), possibly the transposed view of a Conv1D's.
        dtype: Dtype of the result.
        slot: Which of several buffers that are in use at the same time.
    """
    device = weight.device
    stream = torch.cuda.current_stream(device).stream_id if device.type == "cuda" else 0
    key = (device, stream, dtype, slot)
    buffer = _scratch.buffers.get(key)
    if buffer is None or buffer.numel() < weight.numel():
        with torch.inference_mode(False):  # a buffer first used in validation must also serve training
            buffer = torch.empty(weight.numel(), dtype=dtype, device=device)
        _scratch.buffers[key] = buffer
    rows, cols = weight.shape
    flat = buffer[: weight.numel()]
    if weight.stride(0) == 1 and weight.stride(1) != 1:  # Conv1D stores W^T: elementwise passes stay contiguous
        return flat.view(cols, rows).t()
    return flat.view(rows, cols)


def release_scratch() -> None:
    """Free the scratch buffers of the calling thread."""
    _scratch.buffers.clear()

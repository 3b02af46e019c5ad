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
        self.views: dict[tuple[Any, ...], Tensor] = {}

    def buffer(self, place: tuple[Any, ...], size: int) -> Tensor:
        """The buffer of a place, made anew (and its views dropped) where it is too small."""
        buffer = self.buffers.get(place)
        if buffer is None or buffer.numel() < size:
            self.views = {key: view for key, view in self.views.items() if key[0] != place}
            device, _, dtype, _ = place
            with torch.inference_mode(False):  # a buffer first used in validation must also serve training
                buffer = torch.empty(size, dtype=dtype, device=device)
            self.buffers[place] = buffer
        return buffer


_scratch = _Scratch()


def scratch_like(weight: Tensor, dtype: torch.dtype, slot: int) -> Tensor:
    """Uninitialised matrix with the shape, device and orientation of a weight; valid until the next call for its slot.

    Args:
        weight: Matrix of shape (rows, cols), possibly the transposed view of a Conv1D's.
        dtype: Dtype of the result.
        slot: Which of several buffers that are in use at the same time.
    """
    rows, cols = weight.shape
    transposed = weight.stride(0) == 1 and weight.stride(1) != 1  # Conv1D: elementwise passes stay contiguous
    device = weight.device
    if torch.compiler.is_compiling():  # a compiled graph plans its own memory
        fresh = torch.empty((cols, rows) if transposed else (rows, cols), dtype=dtype, device=device)
        return fresh.t() if transposed else fresh
    stream = torch.cuda.current_stream(device).stream_id if device.type == "cuda" else 0
    place = (device, stream, dtype, slot)
    view = _scratch.views.get((place, rows, cols, transposed))
    if view is None:
        flat = _scratch.buffer(place, rows * cols)[: rows * cols]
        view = flat.view(cols, rows).t() if transposed else flat.view(rows, cols)
        _scratch.views[place, rows, cols, transposed] = view
    return view

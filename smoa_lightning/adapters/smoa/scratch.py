"""Dense scratch memory that all layers share, so that no layer causes page faults for its own W + s D."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class _Scratch(threading.local):
    """One buffer for each thread, device, stream, dtype and slot, as large as the largest layer so far.

    A caller uses a buffer within one call only. Between filling and using it, no other layer may run; under gradient
    checkpointing, reading ``saved_tensors`` runs layers. Threads do not share buffers, because CUDA's backward runs in
    a separate thread.
    """

    def __init__(self) -> None:
        self.buffers: dict[tuple[Any, ...], Tensor] = {}
        self.views: dict[tuple[Any, ...], Tensor] = {}
        self.owned_by_graph = False

    def buffer(self, place: tuple[Any, ...], size: int) -> Tensor:
        """Return the buffer of a place; a buffer that is too small is replaced and its views are dropped."""
        buffer = self.buffers.get(place)
        if buffer is None or buffer.numel() < size:
            self.views = {key: view for key, view in self.views.items() if key[0] != place}
            device, _, dtype, _ = place
            with torch.inference_mode(False):  # training also uses a buffer that validation created
                buffer = torch.empty(size, dtype=dtype, device=device)
            self.buffers[place] = buffer
        return buffer


_scratch = _Scratch()


@contextlib.contextmanager
def separate_scratch() -> Iterator[None]:
    """Use other buffers in the block, for fake tensors, which must not meet real ones."""
    before = _scratch.buffers, _scratch.views
    _scratch.buffers, _scratch.views = {}, {}
    try:
        yield
    finally:
        _scratch.buffers, _scratch.views = before


@contextlib.contextmanager
def memory_of_graph(device: torch.device) -> Iterator[None]:
    """Take new memory in the block instead of buffers: a CUDA graph owns all memory that is allocated while it runs."""
    before = _scratch.owned_by_graph
    _scratch.owned_by_graph = device.type == "cuda"
    try:
        yield
    finally:
        _scratch.owned_by_graph = before


def scratch_like(weight: Tensor, dtype: torch.dtype, slot: int) -> Tensor:
    """Return an uninitialised matrix with the shape, device and memory layout of a weight.

    The matrix is valid until the next call with the same slot.

    Args:
        weight: Matrix of shape (rows, cols), possibly a transposed view of a Conv1D's weight.
        dtype: Dtype of the result.
        slot: Number of the buffer, for buffers that are in use at the same time.
    """
    rows, cols = weight.shape
    transposed = weight.stride(0) == 1 and weight.stride(1) != 1  # Conv1D: elementwise operations stay contiguous
    device = weight.device
    if torch.compiler.is_compiling() or _scratch.owned_by_graph:  # a compiled graph plans its own memory
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

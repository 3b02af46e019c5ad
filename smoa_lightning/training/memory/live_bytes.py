"""Count the bytes of the tensors that exist at one time, by what they are for."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WEIGHTS, GRADIENTS, OPTIMIZER, ACTIVATIONS, LOGITS = "weights", "gradients", "optimizer", "activations", "logits"
KINDS = (WEIGHTS, GRADIENTS, OPTIMIZER, ACTIVATIONS, LOGITS)


class LiveBytes(TorchDispatchMode):
    """Counts the storages that exist while it is active; a storage counts until the last tensor of it is freed.

    A new storage is of the kind ``phase``, and one with the shape of the logits counts as logits. Memory that a kernel
    uses inside of one operation has no tensor and is not counted.

    A number that Python reads from a fake tensor is 0, and a truth value is true. So the branch "dropout does not leave
    out this layer" is taken.

    Args:
        logits: (targets, vocabulary), the shape of the logits; their gradients and copies have it too.

    Attributes:
        phase: Kind of the storages that are made now.
        now: Kind -> bytes that exist now.
        peak: Kind -> bytes at the time when their sum was largest.
        largest: Kind -> largest bytes of this kind at any time.
    """

    def __init__(self, logits: tuple[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = WEIGHTS
        self.now: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.largest: Counter[str] = Counter()
        self._total = self._peak_total = 0
        self._live: dict[int, tuple[int, str]] = {}  # address of a storage -> its bytes and kind
        self._logits = logits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return True if args[0].dtype == torch.bool else 0
        result = func(*args, **(kwargs or {}))
        self.add(tree_leaves(result))
        return result

    def add(self, values: Iterable[Any]) -> None:
        """Count the storages of tensors that are not counted yet."""
        for value in values:
            if isinstance(value, Tensor) and value.layout == torch.sparse_coo:
                self.add([value._indices(), value._values()])
            elif isinstance(value, Tensor):
                self._add(value)

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        rows, vocabulary = self._logits
        is_logits = tensor.ndim > 1 and tensor.shape[-1] == vocabulary and tensor.numel() == rows * vocabulary
        kind = LOGITS if is_logits and self.phase == ACTIVATIONS else self.phase
        self._live[key] = storage.nbytes(), kind
        weakref.finalize(storage, self._free, key)
        self._change(kind, storage.nbytes())

    def _free(self, key: int) -> None:
        size, kind = self._live.pop(key)
        self._change(kind, -size)

    def _change(self, kind: str, size: int) -> None:
        self.now[kind] += size
        self._total += size
        self.largest[kind] = max(self.largest[kind], self.now[kind])
        if self._total > self._peak_total:
            self._peak_total, self.peak = self._total, self.now.copy()

    def becomes_gradient(self, parameter: nn.Parameter) -> None:
        """Count the gradient of a parameter as a gradient; until now it was a value of the backward pass."""
        if parameter.grad is None:
            return
        key = parameter.grad.untyped_storage()._cdata
        size, kind = self._live[key]
        if kind != GRADIENTS:
            self._live[key] = size, GRADIENTS
            self._total -= size
            self.now[kind] -= size
            self._change(GRADIENTS, size)

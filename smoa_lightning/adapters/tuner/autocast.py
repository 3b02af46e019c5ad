"""Computing in the dtype of the tensors where autocast is on."""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def without_autocast(device_type: str) -> Any:
    """Return a context without autocast; where it is off already, the context does nothing and costs nothing."""
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()

"""torch's random states of all processes of a run: processes with parts of different sizes draw different numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed


def random_states(world_size: int) -> dict[str, Any]:
    """Return the random state of this process and, in a run of several processes, the states of all of them.

    All processes must call this at the same time.
    """
    own = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
    if world_size == 1:
        return own
    states: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(states, own)
    return {**own, "processes": states}


def random_state_of(saved: Mapping[str, Any] | None, rank: int) -> Mapping[str, Any] | None:
    """Return the state of a process from the result of :func:`random_states`, of this or an earlier version."""
    states = (saved or {}).get("processes", ())
    return states[rank] if rank < len(states) else saved

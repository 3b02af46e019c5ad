"""What each worker of a machine gets: its share of the threads, and a GPU of its own."""

from __future__ import annotations

import os

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def environment_of(number: int, workers: int) -> dict[str, str]:
    """Return the environment of a worker: its device, and its share of this machine's threads.

    What the user has set stays. Where there are GPUs, workers take them in turn.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = str(max(1, cores // workers))
    found = {name: share for name in THREADS if name not in os.environ} if workers > 1 else {}
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if len(devices) > 1:
        found["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return found


def assign_device(number: int) -> None:
    """Show this worker one GPU only, where nobody has chosen; before CUDA is first used."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return
    import torch

    if count := torch.cuda.device_count():
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number % count)

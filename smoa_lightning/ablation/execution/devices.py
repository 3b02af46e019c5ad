"""Threads and GPU of each worker on a machine."""

from __future__ import annotations

import os

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def environment_of(number: int, workers: int) -> dict[str, str]:
    """Return the environment of a worker: its device, and its share of this machine's threads.

    Thread numbers that the user has set are not changed. Workers share the devices of ``CUDA_VISIBLE_DEVICES``.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = str(max(1, cores // workers))
    found = {name: share for name in THREADS if name not in os.environ} if workers > 1 else {}
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if len(devices) > 1:
        found["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return found


def assign_device(number: int) -> None:
    """Make only one GPU visible to this worker, unless the user has chosen. Call this before CUDA is first used."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return
    import torch

    if count := torch.cuda.device_count():
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number % count)

"""Threads and GPU of each worker on a machine."""

from __future__ import annotations

import ctypes
import os

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
VISIBLE = "CUDA_VISIBLE_DEVICES"


def environment_of(number: int, workers: int) -> dict[str, str]:
    """Return the environment of a worker: its device, and its share of this machine's threads.

    The worker must have its device when it starts, since some libraries use CUDA when they are imported. Thread numbers
    that the user has set are not changed. Workers share the devices of ``CUDA_VISIBLE_DEVICES``, else all devices.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = str(max(1, cores // workers))
    found = {name: share for name in THREADS if name not in os.environ} if workers > 1 else {}
    devices = os.environ[VISIBLE].split(",") if VISIBLE in os.environ else [str(gpu) for gpu in range(count_gpus())]
    if len(devices) > 1:
        found[VISIBLE] = devices[number % len(devices)]
    return found


def count_gpus() -> int:
    """Return the number of NVIDIA GPUs, from the driver's management library: CUDA is not initialised."""
    try:
        driver, count = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_uint(0)
        if driver.nvmlInit_v2() != 0:
            return 0
        failed = driver.nvmlDeviceGetCount_v2(ctypes.byref(count))
        driver.nvmlShutdown()
    except (OSError, AttributeError):  # no driver
        return 0
    return 0 if failed else count.value

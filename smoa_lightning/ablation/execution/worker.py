"""A worker process: one device, its share of the threads, and a backbone that stays in memory from run to run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from smoa_lightning.ablation.command_line import Options
from smoa_lightning.ablation.execution.storage import open_storage
from smoa_lightning.ablation.execution.work import Work
from smoa_lightning.ablation.execution.worker_id import WorkerId
from smoa_lightning.ablation.space import Study
from smoa_lightning.keeping import keeping
from smoa_lightning.startup import import_command

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def environment_of(number: int, workers: int) -> dict[str, str]:
    """Return the environment of a worker: its device, and its share of this machine's threads.

    What the user has set stays. Where there are GPUs, workers take them in turn.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = str(max(1, cores // workers))
    found = {name: share for name in THREADS if name not in os.environ} if workers > 1 else {}
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if workers > 1 and len(devices) > 1:
        found["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return found


def be_worker(study: Study, folder: Path, options: Options) -> None:
    """Do runs of a study until none is left.

    Raises:
        KeyboardInterrupt: Ctrl-C, or the process that started this one asks to stop.
    """
    signal.signal(signal.SIGTERM, _stop)
    from smoa_lightning.startup import without_collection

    with without_collection():
        import_command("smoa_lightning.cli")
        from smoa_lightning.ablation.execution.aggregate import write_cell
        from smoa_lightning.ablation.execution.fitting import fit, prepare_process
    prepare_process()
    assign_device(options.worker or 0, options.workers)
    storage = open_storage(options.storage, folder)
    try:
        with keeping():
            Work(study, folder, storage, fit, write_cell, WorkerId.of(os.getpid())).until_done()
    finally:
        storage.remove_session()


def assign_device(number: int, workers: int) -> None:
    """Give each worker a GPU of its own, where there are several and nobody has chosen."""
    if workers == 1 or "CUDA_VISIBLE_DEVICES" in os.environ:
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt

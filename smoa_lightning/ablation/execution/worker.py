"""A worker process: one device, a share of the threads, and a cached backbone for all its runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from smoa_lightning.ablation.execution.options import Options
from smoa_lightning.ablation.execution.storage import close_storage, open_storage
from smoa_lightning.ablation.execution.work import Tools, Work
from smoa_lightning.ablation.execution.worker_id import WorkerId
from smoa_lightning.ablation.study.space import Study
from smoa_lightning.common.fast_imports import import_command, without_collection
from smoa_lightning.common.parent import stop_with_parent
from smoa_lightning.common.process_cache import process_cache


def be_worker(study: Study, folder: Path, options: Options) -> None:
    """Do runs of a study until none is left.

    Raises:
        KeyboardInterrupt: Ctrl-C, or a stop signal from the supervisor.
    """
    signal.signal(signal.SIGTERM, _stop)
    stop_with_parent()
    with without_collection():
        import_command("smoa_lightning.training.cli")
        from smoa_lightning.ablation.execution.aggregate import write_cell
        from smoa_lightning.ablation.execution.fitting import fit, prepare_process
        from smoa_lightning.ablation.execution.pruning import TrialPruning
    prepare_process()
    storage = open_storage(options.storage, folder)
    try:
        with process_cache():
            tools = Tools(fit, write_cell, TrialPruning)
            Work(study, folder, storage, tools, WorkerId.of(os.getpid())).until_done()
    finally:
        close_storage(storage)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt

"""One run of a study in this process.

A worker does many runs. A run must not affect the next run: each run sets its seeds, and gets copies of cached objects.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from smoa_lightning.ablation.execution.folders import note
from smoa_lightning.ablation.study.space import Run
from smoa_lightning.common.quiet import quiet_libraries
from smoa_lightning.records.record import RECORD, STUDY_FACTS
from smoa_lightning.training.callbacks.cost_monitor import reset_peak_memory
from smoa_lightning.training.cli import FineTuneCLI

logger = logging.getLogger(__name__)


def prepare_process() -> None:
    """Prepare the process once, as the command ``fit`` does before its run."""
    quiet_libraries()
    torch.set_float32_matmul_precision("high")


def fit(run: Run, folder: Path, facts: Mapping[str, Any], base: bool, callbacks: Sequence[Callback] = ()) -> None:
    """Do a run in a folder, or continue it.

    Args:
        run: The run.
        folder: Its folder, which is empty or has the files of the same interrupted run.
        facts: Facts about the study for the record.
        base: Whether the base model is scored too; this is ignored for a search run.
        callbacks: Further callbacks.

    Raises:
        Exception: The exception that ended the run; the record contains it.
    """
    began, resumed = time.monotonic(), (folder / RECORD).is_file()
    reset_peak_memory()
    torch.use_deterministic_algorithms(False)  # an earlier run may have set it for the whole process
    arguments = [*run.arguments, f"--run.folder={folder}", f"--run.name={run.name}"]
    if run.stage == "final":
        arguments.append(f"--run.score_base={'true' if base else 'false'}")
    try:
        done = FineTuneCLI(
            ["fit", *arguments, "--trainer.enable_progress_bar=false"], callbacks=callbacks, notes={STUDY_FACTS: facts}
        ).run
    finally:
        gc.collect()
    if done is not None:
        logger.info("%s", done.result)
    seconds = None if resumed else time.monotonic() - began  # the time before an interruption is unknown
    note(folder, {"seconds": seconds})

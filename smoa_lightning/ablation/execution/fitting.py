"""One run of a study in this process: fit, its record, and what is left of its files.

A worker does many of these. Nothing that a run changes may reach the next one: seeds are set by the run itself, and
what is kept between runs is never handed out to be changed.
"""

from __future__ import annotations

import gc
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


def prepare_process() -> None:
    """Do once what the command ``fit`` does before its run."""
    quiet_libraries()
    torch.set_float32_matmul_precision("high")


def fit(run: Run, folder: Path, facts: Mapping[str, Any], base: bool, callbacks: Sequence[Callback] = ()) -> None:
    """Do a run in a folder, or go on with it.

    Args:
        run: The run.
        folder: Its folder, which holds nothing, or what an interruption left of the same run.
        facts: What the record says about the study.
        base: Whether the untouched backbone is scored too; the search never does.
        callbacks: Further callbacks.

    Raises:
        Exception: Whatever ends the run; its record is kept and says so.
    """
    began, resumed = time.monotonic(), (folder / RECORD).is_file()
    reset_peak_memory()
    torch.use_deterministic_algorithms(False)  # a run that asks for them sets it for the whole process
    arguments = [*run.arguments, f"--run.folder={folder}", f"--run.name={run.name}"]
    if run.stage == "final":
        arguments.append(f"--run.score_base={'true' if base else 'false'}")
    try:
        FineTuneCLI(
            ["fit", *arguments, "--trainer.enable_progress_bar=false"], callbacks=callbacks, notes={STUDY_FACTS: facts}
        )
    finally:
        gc.collect()
    seconds = None if resumed else time.monotonic() - began  # how long the first part of a run took is not known
    note(folder, {"seconds": seconds})

"""A worker that does not train: each run is a pause and a file (``python fake_worker.py STUDY FOLDER URL NUMBER``).

Everything else is the same as for a real worker: claims, signs of life, folders, records, results.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.execution.storage import close_storage, open_storage
from smoa_lightning.ablation.execution.work import Tools, Work
from smoa_lightning.ablation.execution.worker_id import Watch, WorkerId
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.ablation.study.space import Run
from smoa_lightning.common.atomic_files import write_json
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.parent import stop_with_parent
from smoa_lightning.records.claim import run_lock
from smoa_lightning.records.record import RECORD

SECONDS = float(os.environ.get("FAKE_SECONDS", "0"))


def score(run: Run) -> float:
    """Return the score of a fake run: better for a rate near 0.02, and different for every cell and seed."""
    rate = float(run.parameters.get("model.optimizer.init_args.lr", 0.02))
    return 0.5 + 0.01 * run.seed - abs(rate - 0.02) + 0.001 * len(run.cell.name)


def fit(run: Run, folder: Path, facts: Mapping[str, Any], base: bool, callbacks: Sequence[Any] = ()) -> None:
    """Write a finished record after a pause; the seed ``FAIL_SEED`` raises.

    ``LOG`` gets a line at the beginning and the end, and one if the run was finished already. A worker that is killed
    after the record writes no line at the end.
    """
    log(f"begin {run.signature}")
    with run_lock(folder):
        if (folder / RECORD).is_file():
            log(f"again {run.signature}")
        time.sleep(random.Random(os.getpid() + time.time_ns()).uniform(0.5, 1.5) * SECONDS)
        if os.environ.get("FAIL_SEED") == str(run.seed):
            raise UserError("this seed always fails.")
        metrics = {f"{part}/{name}": score(run) for part in ("report", "selection") for name in ("acc", "nll")}
        if base:
            metrics["base/acc"] = 0.1
        (folder / "adapter" / "best").mkdir(parents=True, exist_ok=True)
        record = {"name": run.name, "signature": "x", "status": "finished", "metrics": metrics}
        times = dict.fromkeys(("started", "finished"), "2026-01-01T00:00:00+00:00")
        write_json(folder / RECORD, record | times | {"ablation": {**facts, "seconds": SECONDS}})
    log(f"end {run.signature}")


def log(line: str) -> None:
    """Append a whole line to the file ``LOG``."""
    if "LOG" in os.environ:
        with open(os.environ["LOG"], "a", encoding="utf-8") as stream:
            stream.write(line + "\n")


TOOLS = Tools(fit, lambda folder, cell, records: None, lambda trial, metric: None)


def stop(number: int, frame: object) -> None:
    """Stop as a real worker stops on a signal."""
    raise KeyboardInterrupt


def main() -> None:
    """Work until the study has ended."""
    signal.signal(signal.SIGTERM, stop)
    stop_with_parent()
    study = load_study([Path(sys.argv[1])])
    folder, url = Path(sys.argv[2]), sys.argv[3] or None
    storage = open_storage(url, folder)
    work = Work(study, folder, storage, TOOLS, WorkerId.of(os.getpid()), Watch(grace=5))
    try:
        work.until_done(poll=0.1)
    finally:
        close_storage(storage)


if __name__ == "__main__":
    main()

"""The folder of each run of a study: whose it is, whether it is finished, and runs that other studies have done."""

from __future__ import annotations

import contextlib
import datetime
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.execution.worker_id import WorkerId
from smoa_lightning.ablation.study.space import Run
from smoa_lightning.ablation.study.study_file import Keep
from smoa_lightning.common.atomic_files import replacing, write_json
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import RECORD, STUDY, STUDY_FACTS, read_record

MARK = ".run"  # holds the signature of the run whose folder it is
STAGES = {"final": "runs", "search": "search"}
CELLS = "cells"  # aggregates for TensorBoard, one for each cell


class Folders:
    """The folders of a study's runs.

    Args:
        study: Name of the study.
        folder: The study folder.
        keep: What finished runs keep.
    """

    def __init__(self, study: str, folder: Path, keep: Keep) -> None:
        self.study, self.folder, self.keep = study, folder, keep

    def of(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.folder / STAGES[run.stage] / run.name

    def facts(self, run: Run, worker: WorkerId) -> dict[str, Any]:
        """Return what the record of a run says about its study."""
        return {
            "study": self.study,
            "cell": run.cell.name,
            "axes": dict(run.cell.labels),
            "stage": run.stage,
            "seed": run.seed,
            "trial": run.trial,
            "parameters": dict(run.parameters),
            "signature": run.signature,
            "worker": f"{worker.machine}:{worker.pid}",
            "reused_from": None,
        }

    def take(self, run: Run) -> Path:
        """Return the folder of a run, marked as its own.

        What is there of another run is moved to ``superseded``: a search that grew may have found other values.
        """
        folder = self.of(run)
        if folder.is_dir() and marked(folder) != run.signature:
            aside = self.folder / "superseded"
            aside.mkdir(exist_ok=True)
            number = 1
            while (aside / f"{folder.name}-{number}").exists():
                number += 1
            folder.rename(aside / f"{folder.name}-{number}")
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / MARK) as temporary:
            temporary.write_text(run.signature, encoding="utf-8")
        return folder

    def finished(self, run: Run) -> dict[str, Any] | None:
        """Return the record of a run that is finished in its folder."""
        return finished(self.of(run), run.signature)

    def adopt(self, run: Run, worker: WorkerId, base: bool) -> dict[str, Any] | None:
        """Copy a run that another study beside this one has finished; return its record, ``None`` if none has.

        Args:
            run: The run.
            worker: Who adopts it.
            base: Whether the score of the untouched backbone has to be among what is copied.
        """
        for other in self._others():
            if marked(other) == run.signature and self._serves(other, run, base):
                self.take(run)
                with replacing(self.of(run)) as temporary:
                    leave = shutil.ignore_patterns(
                        "checkpoints", ".lock", *(["adapter"] if self.keep == "none" else [])
                    )
                    shutil.copytree(other, temporary, ignore=leave)
                    note(temporary, {**self.facts(run, worker), "reused_from": str(other)})
                return self.finished(run)
        return None

    def _serves(self, other: Path, run: Run, base: bool) -> bool:
        """Whether a folder holds a finished run with all that this study wants of it."""
        record = finished(other, run.signature)
        if record is None:
            return False
        scored = not base or any(name.startswith("base/") for name in record["metrics"])
        return scored and (run.stage == "search" or self.keep == "none" or (other / "adapter").is_dir())

    def _others(self) -> Iterator[Path]:
        for study in sorted(self.folder.parent.glob(f"*/{STUDY}")):
            if study.parent != self.folder:
                for stage in STAGES.values():
                    yield from run_folders(study.parent / stage)

    def tidy(self, run: Run) -> None:
        """Remove what a finished run no longer needs: checkpoints, the last adapter, the best one if it is not kept."""
        whole = self.keep == "none" or run.stage == "search"
        for name in ("checkpoints", "adapter" if whole else "adapter/last"):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.of(run) / name)


def run_folders(stage: Path) -> list[Path]:
    """Return the folders of the runs of a stage by name, without those that are still being copied."""
    if not stage.is_dir():
        return []
    return sorted(entry for entry in stage.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def marked(folder: Path) -> str:
    """Return the signature of the run whose folder it is; empty where there is no mark."""
    try:
        return (folder / MARK).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def finished(folder: Path, signature: str) -> dict[str, Any] | None:
    """Return the record of a folder if it holds the finished run of a signature.

    A damaged record is none: the run is done again, and what is there moved aside.
    """
    if marked(folder) != signature:
        return None
    try:
        record = read_record(folder)
    except UserError:
        (folder / MARK).unlink()
        return None
    return record if record is not None and record["status"] == "finished" else None


def note(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Add to what a run's record says about its study, and return the record."""
    record = read_record(folder)
    if record is None:
        raise RuntimeError(f"the run in {folder} ended without a record")
    record[STUDY_FACTS] = {**record.get(STUDY_FACTS, {}), **facts}
    write_json(folder / RECORD, record)
    return record


def seconds_of(record: Mapping[str, Any]) -> float:
    """Return how long a run took: as noted, else from its first start to its end."""
    noted = record.get(STUDY_FACTS, {}).get("seconds")
    if noted is not None:
        return float(noted)
    began, ended = (datetime.datetime.fromisoformat(record[key]) for key in ("started", "finished"))
    return (ended - began).total_seconds()

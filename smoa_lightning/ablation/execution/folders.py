"""The folders of a study's runs: their marks, their records, and runs copied from other studies."""

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
from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.common.checksums import write_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.leftovers import remove_leftovers
from smoa_lightning.records.record import RECORD, STUDY, STUDY_FACTS, read_record

MARK = ".run"  # file with the signature of the folder's run
STAGES = {"final": "runs", "search": "search"}
CELLS = "cells"  # folder of the aggregates for TensorBoard, one for each cell


class Folders:
    """The folders of a study's runs.

    Args:
        study: Name of the study.
        folder: The study folder.
        keep: Whether finished runs keep their best adapter.
    """

    def __init__(self, study: str, folder: Path, keep: Keep) -> None:
        self.study, self.folder, self.keep = study, folder, keep

    def of(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.folder / STAGES[run.stage] / run.name

    def facts(self, run: Run, worker: WorkerId) -> dict[str, Any]:
        """Return the facts about the study for the record of a run."""
        return {
            "study": self.study,
            "cell": run.cell.name,
            "axes": dict(run.cell.labels),
            "stage": run.stage,
            "seed": run.seed,
            "trial": run.trial,
            "parameters": dict(run.parameters),
            "signature": run.signature,
            "content": run.cell.content,
            "worker": f"{worker.machine}:{worker.pid}",
            "reused_from": None,
        }

    def take(self, run: Run) -> Path:
        """Return the folder of a run, with the mark of this run.

        Files of a different run, or with a damaged record, are moved to ``superseded``: with more trials a search may
        find different values. Only the worker that has claimed the run calls this.
        """
        folder = self.of(run)
        if marked(folder) == run.signature and not _is_damaged(folder):
            return folder
        if folder.is_dir():
            superseded = self.folder / "superseded"
            superseded.mkdir(exist_ok=True)
            number = 1
            while (superseded / f"{folder.name}-{number}").exists():
                number += 1
            folder.rename(superseded / f"{folder.name}-{number}")
        with replacing(folder) as temporary:  # a kill leaves no folder without a mark
            temporary.mkdir()
            (temporary / MARK).write_text(run.signature, encoding="utf-8")
        return folder

    def finished(self, run: Run) -> dict[str, Any] | None:
        """Return the record of a run if it is finished in its folder."""
        return finished(self.of(run), run.signature)

    def adopt(self, run: Run, worker: WorkerId, base: bool) -> dict[str, Any] | None:
        """Copy a finished run from another study in the same root; return its record, ``None`` without such a run.

        The run of another trial of this study with the same values and seed is copied too.

        Args:
            run: The run.
            worker: The worker that copies the run.
            base: Whether the run must have a score of the base model.
        """
        for other in self._others(run):
            if marked(other) == run.signature and self._is_sufficient(other, run, base):
                self.take(run)
                with replacing(self.of(run)) as temporary:
                    leave = shutil.ignore_patterns(
                        "checkpoints", ".lock", *(["adapter"] if self.keep == "none" else [])
                    )
                    shutil.copytree(other, temporary, ignore=leave)
                    note(temporary, {**self.facts(run, worker), "reused_from": str(other)})
                return self.finished(run)
        return None

    def _is_sufficient(self, other: Path, run: Run, base: bool) -> bool:
        """Whether a folder has a finished run with everything that this study needs."""
        record = finished(other, run.signature)
        if record is None or record.get(STUDY_FACTS, {}).get("content", "") != run.cell.content:
            return False  # unfinished, or of other local rows or weights
        scored = not base or any(name.startswith("base/") for name in record["metrics"])
        return scored and (run.stage == "search" or self.keep == "none" or (other / "adapter").is_dir())

    def _others(self, run: Run) -> Iterator[Path]:
        """Yield the folders of other trials of this study, then those of other studies that this user can read."""
        mine = self.of(run)
        yield from (other for other in run_folders(self.folder / STAGES["search"]) if other != mine)
        for study in sorted(self.folder.parent.glob(f"*/{STUDY}")):
            for stage in STAGES.values() if study.parent != self.folder else ():
                with contextlib.suppress(PermissionError):
                    yield from run_folders(study.parent / stage)

    def remove_leftovers(self) -> None:
        """Remove temporary files that dead processes left in the study folder and in the folders of its runs."""
        stages = [self.folder / name for name in (*STAGES.values(), CELLS)]
        for folder in (self.folder, *stages, *(run for stage in stages for run in run_folders(stage))):
            remove_leftovers(folder)

    def tidy(self, run: Run) -> None:
        """Remove files that a finished run no longer needs: checkpoints, the last adapter, maybe the best adapter."""
        whole = self.keep == "none" or run.stage == "search"
        for name in ("checkpoints", "adapter" if whole else "adapter/last"):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.of(run) / name)


def run_folders(stage: Path) -> list[Path]:
    """Return the run folders of a stage, sorted by name, without folders that are still being copied."""
    if not stage.is_dir():
        return []
    return sorted(entry for entry in stage.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def marked(folder: Path) -> str:
    """Return the signature of a folder's run; empty without a mark. A damaged mark is the signature of no run.

    A folder that this user cannot read has no mark.
    """
    try:
        return (folder / MARK).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""


def finished(folder: Path, signature: str) -> dict[str, Any] | None:
    """Return the record of a folder if it has the finished run with a signature.

    A damaged record, or one that this user cannot read, counts as missing. Nothing in the folder is changed, since it
    may be that of another study.
    """
    if marked(folder) != signature:
        return None
    try:
        record = read_record(folder)
    except (UserError, PermissionError):
        return None
    return record if record is not None and record["status"] == "finished" else None


def _is_damaged(folder: Path) -> bool:
    """Whether a folder has a record that cannot be used."""
    try:
        read_record(folder)
    except UserError:
        return True
    return False


def note(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Add facts about the study to the record of a run, and return the record."""
    record = read_record(folder)
    if record is None:
        raise RuntimeError(f"the run in {folder} ended without a record")
    record[STUDY_FACTS] = {**record.get(STUDY_FACTS, {}), **facts}
    write_sealed(folder / RECORD, record)
    return record


def seconds_of(record: Mapping[str, Any]) -> float:
    """Return the seconds of a run from its record; without them, the time from its first start to its end."""
    noted = record.get(STUDY_FACTS, {}).get("seconds")
    if noted is not None:
        return float(noted)
    began, ended = (datetime.datetime.fromisoformat(record[key]) for key in ("started", "finished"))
    return (ended - began).total_seconds()

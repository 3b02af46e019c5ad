"""The points of an interrupted run in the file of a ``CSVLogger``: a kill at any time leaves a file that continues."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from smoa_lightning.common.atomic_files import replacing

STEP = "step"
Point = dict[str, str]


def continue_csv(logger: CSVLogger, step: int) -> None:
    """Let a logger continue the file of an interrupted run, without the points that its resumed run will write again.

    Args:
        logger: The logger, which has not written yet.
        step: The step from which the run continues.
    """
    file = Path(logger.log_dir) / ExperimentWriter.NAME_METRICS_FILE
    if "://" in logger.log_dir:
        return  # Lightning begins a file in the cloud again
    writer = _Continuing(logger.log_dir)
    if file.is_file():
        names, points = read_points(file)
        _write_points(file, names, [point for point in points if int(point[STEP]) < step])
        writer.metrics_keys = list(names)
    logger._experiment = writer


def read_points(file: Path) -> tuple[Sequence[str], list[Point]]:
    """Return the columns and the complete points of a file; a process that was killed leaves half a line at its end."""
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1].decode("utf-8", errors="replace")
    reader = csv.DictReader(whole.splitlines())
    names = reader.fieldnames or []
    if STEP not in names:
        return [], []
    return names, [point for point in reader if _is_complete(point)]


def _is_complete(point: Mapping[Any, Any]) -> bool:
    if None in point or None in point.values():  # more or fewer fields than columns
        return False
    try:
        return int(point[STEP]) >= 0 and all(map(_is_number, filter(None, point.values())))
    except ValueError:
        return False


def _is_number(text: str) -> bool:
    float(text)  # a number that is not finite is one too
    return True


def _write_points(file: Path, names: Sequence[str], points: Iterable[Mapping[str, Any]]) -> None:
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        if names:
            writer.writeheader()
        writer.writerows(points)


class _Continuing(ExperimentWriter):
    """Lightning's writer, but the file that is there stays, and new columns replace it in one step."""

    def _check_log_dir_exists(self) -> None:
        """Remove nothing."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        file = Path(self.metrics_file_path)
        _write_points(file, fieldnames, read_points(file)[1])

"""Tables and pictures for each kind of logger. No library of a logger is imported unless the run uses it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.records.csv_text import csv_text


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        name: Its name in the logger, with ``/`` between parts.
        header: The columns.
        rows: One text for each column.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the table in Markdown; a cell is one line."""
        lines = [self.header, ["---"] * len(self.header), *(map(cell, row) for row in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def csv(self) -> str:
        """Return the table as CSV."""
        return csv_text([self.header, *self.rows])


def cell(text: str) -> str:
    """Return a text as one cell of a Markdown table.

    >>> print(cell("a | b"))
    a \\| b
    """
    lines = (" ".join(line.split()) for line in text.splitlines())
    return " <br> ".join(filter(None, lines)).replace("|", "\\|")


@dataclass(frozen=True)
class Picture:
    """A picture, as the bytes of a PNG file.

    Attributes:
        name: Its name in the logger, with ``/`` between parts.
        png: The file.
        width: Pixels.
        height: Pixels.
    """

    name: str
    png: bytes
    width: int
    height: int


def log_table(loggers: Iterable[Logger], table: Table, step: int) -> None:
    """Give a table to every logger that can show or keep one."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(table.name, table.markdown(), step)
        elif isinstance(logger, WandbLogger):
            logger.log_text(table.name, list(table.header), [list(row) for row in table.rows], step=step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_text(str(logger.run_id), table.csv(), f"{table.name}.csv")
        elif isinstance(logger, CSVLogger):
            _write(Path(logger.log_dir) / f"{table.name}.csv", table.csv().encode())


def log_picture(loggers: Iterable[Logger], picture: Picture, step: int) -> None:
    """Give a picture to every logger that can show or keep one."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.file_writer.add_summary(_image_summary(picture), step)
        elif isinstance(logger, WandbLogger):
            logger.log_image(picture.name, [_opened(picture)], step=step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(str(logger.run_id), _opened(picture), f"{picture.name}.png")
        elif isinstance(logger, CSVLogger):
            _write(Path(logger.log_dir) / f"{picture.name}.png", picture.png)


def _image_summary(picture: Picture) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    image = Summary.Image(height=picture.height, width=picture.width, colorspace=4, encoded_image_string=picture.png)
    return Summary(value=[Summary.Value(tag=picture.name, image=image)])


def _opened(picture: Picture) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(picture.png)).convert("RGB")


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        temporary.write_bytes(content)

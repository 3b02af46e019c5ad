"""Refuses a search whose trials would never be scored, before any of them trains."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.planning.cell_cost import RemainingRuns
from smoa_lightning.ablation.planning.finished_runs import read_finished
from smoa_lightning.ablation.study.parameters import Parameter
from smoa_lightning.ablation.study.space import Cell, Study
from smoa_lightning.common.fast_imports import import_command


def may_end_early(cell: Cell) -> bool:
    """Whether training in a searched cell may end before its first validation; the number of rows decides."""
    given = cell.settings.get("trainer") or {}
    searched = {parameter.key for parameter in cell.parameters}
    by_clock = isinstance(given.get("val_check_interval"), str | dict)
    limited = given.get("max_steps") not in (None, -1) or "trainer.max_steps" in searched
    limited |= given.get("check_val_every_n_epoch", 1) != 1 or "trainer.check_val_every_n_epoch" in searched
    return bool(searched) and limited and not by_clock


def variants(cell: Cell) -> Iterator[dict[str, Any]]:
    """Yield values of the searched settings of a cell: all choices and both ends of ranges of data and trainer.

    The other settings do not decide when training ends, and have one value.
    """
    keys = [parameter.key for parameter in cell.parameters]
    for values in itertools.product(*map(_ends, cell.parameters)):
        yield dict(zip(keys, values, strict=True))


def _ends(parameter: Parameter) -> tuple[Any, ...]:
    if not parameter.key.startswith(("trainer.", "data.")):
        return (parameter.example,)
    values = parameter.values or (parameter.low, parameter.high)
    return parameter.choices or tuple(dict.fromkeys((values[0], values[-1])))


def check_search(study: Study, folder: Path | None = None) -> None:
    """Refuse a search in which training ends before the first scoring of the selection rows, with all values.

    The rows of such a cell are read and encoded, as its runs do; for all other studies nothing is read or imported.

    Args:
        study: The study.
        folder: The study folder; cells whose trials are all finished are not checked.

    Raises:
        UserError: A cell is never scored; the message names the first one.
    """
    doubtful = [cell for cell in study.cells if may_end_early(cell)]
    if doubtful and folder is not None:
        found = read_finished(study, folder)
        doubtful = [cell for cell in doubtful if RemainingRuns.of(study, found[cell.name]).search]
    if doubtful:
        import_command("smoa_lightning.ablation.planning.estimate").check_cells(study, doubtful)

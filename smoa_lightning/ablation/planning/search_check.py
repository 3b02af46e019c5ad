"""Refuses a search whose trials would never be scored, before any of them trains."""

from __future__ import annotations

from smoa_lightning.ablation.study.space import Cell, Study
from smoa_lightning.common.fast_imports import import_command


def may_end_early(cell: Cell) -> bool:
    """Whether training in a searched cell may end before its first validation; the number of rows decides."""
    given = cell.settings.get("trainer") or {}
    searched = {parameter.key for parameter in cell.parameters}
    by_clock = isinstance(given.get("val_check_interval"), str | dict)
    limited = given.get("max_steps") not in (None, -1) or "trainer.max_steps" in searched
    return bool(searched) and limited and not by_clock


def check_search(study: Study) -> None:
    """Refuse a search in which training ends before the first scoring of the selection rows.

    The rows of such a cell are read and encoded, as its runs do; for all other studies nothing is read or imported.

    Raises:
        UserError: A cell is never scored; the message names the first one.
    """
    doubtful = [cell for cell in study.cells if may_end_early(cell)]
    if doubtful:
        import_command("smoa_lightning.ablation.planning.estimate").check_cells(study, doubtful)

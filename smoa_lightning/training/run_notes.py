"""Notes of a run about its start, and its results as text."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from smoa_lightning.common.console import ON_STDOUT, is_first_process
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.data.rows.task_rows import Part
from smoa_lightning.records.published_rules import rules_note
from smoa_lightning.records.record import PREDICTIONS
from smoa_lightning.records.selection import best_checkpoint, selection_note
from smoa_lightning.records.tables import legend, result_lines, result_table

if TYPE_CHECKING:
    from smoa_lightning.data.datamodule import TaskDataModule
    from smoa_lightning.training.module import FineTuneModule
    from smoa_lightning.training.run import Run

logger = logging.getLogger(__name__)


def announce_sources(module: FineTuneModule, data: TaskDataModule | None = None) -> None:
    """Log the sources of a run before anything is checked; a banner reports embedded replacements of the hub."""
    if not is_first_process():
        return
    backbone = module.location
    sources: dict[str, tuple[str, str]] = {"backbone": (module.backbone_config.source, backbone.source)}
    sources |= {} if data is None else {"data": (data.requested_source, str(data.source))}
    replaced = " and ".join(name for name, pair in sources.items() if pair == ("auto", "embedded"))
    if replaced:
        text = f"The hub does not answer: embedded {replaced}. The scores say nothing about real data."
        warn(f"{'=' * len(text)}\n{text}\n{'=' * len(text)}")
    if data is not None:
        logger.info("backbone: %s (%s)   data: %s from %s", backbone.source, backbone.name, data.name, data.source)


def announce(run: Run) -> None:
    """Log the folder of a run, and what differs from its settings."""
    if not is_first_process():
        return
    data, budget = run.data, run.module.budget_fit
    if budget is not None:
        logger.info("%s", budget.line()) if budget.within else warn(budget.line())
    length, used, limits = run.config["data"]["max_length"], data.encoding.max_length, run.module.limits
    if length > used:
        less = f" less {limits.virtual_tokens} virtual tokens" if limits.virtual_tokens else ""
        warn(f"data.max_length {length} is more than the backbone's {limits.positions} positions{less}; {used} is used")
    if data.ignored_settings:
        warn(f"ignored, since files of any size are read from disk: {', '.join(data.ignored_settings)}")
    if run.other_classes:
        logger.info("classes of other packages: %s", ", ".join(run.other_classes))
    logger.info("%s: %s", "resuming" if run.target.resume else "run folder", run.folder)
    if not data.has_report:
        warn(f"no {data.sets.report_split} rows, so nothing will be reported; {data.sets.without_report}")


def warn(text: str) -> None:
    """Log a warning on the standard output, with the notes of the run."""
    logger.warning("%s", text, extra=ON_STDOUT)


def end_reason(error: BaseException) -> str:
    """Return why a run ended early, for its record.

    >>> end_reason(KeyboardInterrupt()), end_reason(ValueError("no rows")), end_reason(UserError("no rows"))
    ('stopped by Ctrl-C', 'ValueError: no rows', 'no rows')
    """
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    if type(error).__name__ == "SIGTERMException":  # of Lightning
        return "stopped by the signal SIGTERM"
    return one_line(error, kind=not isinstance(error, UserError))


def _capacity_line(bits: float, each: float) -> str:
    """Return what a run stores; the nll of a model that knows less than uniform chance exceeds the bits of the codes.

    >>> _capacity_line(1200.4, 0.5), _capacity_line(-300.0, -0.1)
    ('1,200 bits stored, 0.500 for each trained parameter', 'the run stores nothing yet (-300 bits)')
    """
    if bits <= 0:
        return f"the run stores nothing yet ({bits:,.0f} bits)"
    return f"{bits:,.0f} bits stored, {each:.3f} for each trained parameter"


def fit_result(run: Run, metrics: Mapping[str, float]) -> str:
    """Return the scores, the sizes and the folder of a finished run."""
    facts = run.data.sets.table_facts("report")
    lines = result_lines("base model", metrics, "base", facts)
    lines += [] if run.module.frozen else result_lines("after training", metrics, "report", facts)
    table = f"{result_table(lines)}\n{legend()}\n" if lines else ""
    if "capacity/bits_per_parameter" in metrics:
        table += f"{_capacity_line(metrics['capacity/stored_bits'], metrics['capacity/bits_per_parameter'])}\n"
    for note in (best_checkpoint(run.record), selection_note([run.record]), rules_note([run.record])):
        table += f"{note}\n" if note else ""
    trainable, size = (int(metrics[f"parameters/{name}"]) for name in ("trainable", "adapter_bytes"))
    head = f" and {int(metrics['parameters/head']):,} of the head" if "parameters/head" in metrics else ""
    return (
        f"\n{run.name}\n{table}{trainable:,} trainable parameters{head}, adapter of {size:,} bytes\n"
        f"{run.folder}   (tensorboard --logdir {run.folder.parent})"
    )


def evaluation_result(run: Run, metrics: Mapping[str, float], part: Part) -> str:
    """Return the scores and the folder of an evaluation, or the file of its predictions."""
    lines = result_lines("", metrics, part, run.data.sets.table_facts(part))
    predictions = run.folder / PREDICTIONS
    place = predictions if predictions.is_file() else run.folder
    return (f"{result_table(lines)}\n{legend()}\n" if lines else "") + f"written to {place}"

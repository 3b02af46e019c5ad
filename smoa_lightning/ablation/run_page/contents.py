"""The contents of a run's page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from smoa_lightning.ablation.comparison.common_rows import CommonRows, common_rows
from smoa_lightning.ablation.comparison.differences import Comparison, compare_sides
from smoa_lightning.ablation.comparison.disagreements import Disagreements
from smoa_lightning.ablation.comparison.not_finite import not_finite
from smoa_lightning.ablation.comparison.scored_run import MEAN, ScoredRun, base_of, run_record, scored_run
from smoa_lightning.ablation.comparison.settings import FACTS, fact_of
from smoa_lightning.ablation.comparison.sides import BASE_LABEL, Side
from smoa_lightning.ablation.comparison.tables import Compared, differences, scores_down
from smoa_lightning.ablation.run_page.events import Curve, in_steps_done, read_curves
from smoa_lightning.ablation.run_page.figures import curve_figure, finite
from smoa_lightning.ablation.run_page.samples import sample_blocks
from smoa_lightning.ablation.run_page.update import update_blocks
from smoa_lightning.ablation.statistics import counted
from smoa_lightning.records.metric_table import COMMON, METRICS
from smoa_lightning.records.page.document import (
    Block,
    Code,
    Document,
    Fold,
    Heading,
    Paragraph,
    Picture,
    Row,
    Table,
    columns,
)
from smoa_lightning.records.score_notes import NEW_ROWS, about_rows, score_notes
from smoa_lightning.records.selection import ON_REPORT, ON_TRAINED, best_checkpoint, selection_of
from smoa_lightning.records.tables import part_rows

TRAINED = "trained model"
ONE_MODEL = (
    f"The test compares this trained model with its base model on {NEW_ROWS}. A different seed gives a "
    "different model: `compare` and `ablate` say more about the method."
)
SELECTING: dict[str, str] = {
    ON_REPORT: "report rows, which select",
    ON_TRAINED: "training rows, which select and are reported",
}
COSTS = (
    "trainable parameters", "adapter, bytes", "training, s", "whole run, s", "step, s", "tokens/s", "images/s",
    "peak memory, MB", "device",
)  # fmt: skip


def run_document(folder: Path, command: str) -> Document:
    """Return the page of a run; of an unfinished run what is known so far.

    Args:
        folder: The folder of the run.
        command: The command that makes the page.

    Raises:
        UserError: The folder holds no run, or a file of a finished run is damaged.
    """
    record = run_record(folder)
    curves = in_steps_done(read_curves(folder))
    blocks: list[Block] = []
    scored = _scored(folder, record)
    if scored is None:
        blocks.append(Paragraph(_state(record), lead=True))
    else:
        blocks += _score_blocks(*scored)
    blocks += _curve_blocks(record, curves)
    blocks += update_blocks(folder, curves)
    if scored is not None:
        run, base = scored
        blocks += sample_blocks(run, None if record["config"]["model"].get("frozen") else base)
    costs = [*_costs(record), *_data(record)]
    blocks += [Heading("Costs"), *costs] if costs else []
    blocks += _record_blocks(record, command)
    return Document(str(record["name"]), tuple(blocks))


def _scored(folder: Path, record: Mapping[str, Any]) -> tuple[ScoredRun, ScoredRun | None] | None:
    """Return the scores of a finished run and of its base model; None for a run without scores of report rows."""
    if record["status"] != "finished" or not any(name.startswith("report/") for name in record["metrics"]):
        return None
    run = scored_run(folder)
    scored_base = any(name.startswith("base/") for name in record["metrics"])
    return run, base_of(run) if scored_base else None


def _state(record: Mapping[str, Any]) -> str:
    if record["status"] == "finished":
        return "The run is finished, and it has no scores of report rows."
    reason = " ".join(str(record.get("reason") or "").split()).rstrip(":")
    if reason.startswith(("KeyboardInterrupt", "SystemExit")):  # of versions before 0.2
        reason = "stopped by Ctrl-C or a signal"
    why = f" ({reason})" if reason else ""
    state = reason if reason.startswith("stopped by") else f"its status is {record['status']!r}{why}"
    return f"The run is not finished: {state}. The page shows what is known so far."


def _score_blocks(run: ScoredRun, base: ScoredRun | None) -> Iterator[Block]:
    sides = [Side(TRAINED, (run,))]
    trains = not run.record["config"]["model"].get("frozen")
    if base is not None and trains:
        sides.insert(0, Side(BASE_LABEL, (base,), is_for_all_seeds=True))
    rows = common_rows(sides)
    compared = compare_sides(sides, rows)
    primaries = {task.primary for task in run.tasks.values()}
    main = next(iter(primaries)) if len(primaries) == 1 else COMMON
    task = MEAN if len(run.tasks) > 1 else next(iter(run.tasks))
    if main is None or run.metric(task, main) is None:
        main = next(iter(run.metrics(task)), "")
    found = Compared(sides, rows, compared, main, {}, Disagreements((), ()))
    yield Paragraph(_headline(run, task, main, rows), lead=True)
    for note in score_notes([run.record]):
        yield Paragraph(note)
    for each in found.main:
        yield Paragraph(_gain(each))
    for sentence in not_finite(sides, rows):
        yield Paragraph(sentence)
    yield scores_down(found)
    if compared:
        table = differences(found)
        yield Fold(
            "Differences from the base model, for every metric", (table, Paragraph(about_rows(ONE_MODEL, [run.record])))
        )


def _headline(run: ScoredRun, task: str, metric: str, rows: CommonRows) -> str:
    facts = run.record["hyperparameters"]
    rank = f", rank {facts['rank']}" if facts.get("rank") else ""
    method = "The base model" if run.record["config"]["model"].get("frozen") else f"{facts['strategy']}{rank}"
    tasks = ", ".join(run.tasks)
    value, error = run.metric(task, metric), run.metric(task, f"{metric}_stderr")
    if value is None:
        return f"{method} on {tasks}."
    digits = 4 if abs(value) < 2 else 2
    spread = "" if error is None else f" ± {error:.{digits}f} (standard error over rows)"
    mean = f", the mean of {len(run.tasks)} tasks" if len(run.tasks) > 1 else ""
    return f"{method} on {tasks}: {metric} {value:.{digits}f}{spread} on {counted(rows.number, 'report row')}{mean}."


def _gain(each: Comparison) -> str:
    sentence = each.verdict.sentence
    return f"The {sentence}".replace(f" than {BASE_LABEL}", f" than the {BASE_LABEL}").replace(
        f" from {BASE_LABEL}", f" from the {BASE_LABEL}"
    )


def _curve_blocks(record: Mapping[str, Any], curves: Mapping[str, Curve]) -> Iterator[Block]:
    step = (record.get("best") or {}).get("step")
    pictures: list[Picture] = []
    loss, rate = finite(curves.get("train/loss")), finite(curves.get("train/learning_rate"))
    selection = [name for name in METRICS if f"selection/{name}" in curves]
    if loss is not None:
        pictures.append(curve_figure("loss", "Training loss.", "loss", loss))
    if rate is not None:
        pictures.append(curve_figure("learning_rate", "Learning rate.", "learning rate", rate))
    for name in selection[:1]:
        points = finite(curves[f"selection/{name}"])
        if points is not None:
            best = "" if step is None else f" The dashed line is the best checkpoint, step {step:,}."
            best = f" {note} It is the dashed line." if (note := best_checkpoint(record)) else best
            rows = "selection rows, which are held out of the training rows"
            rows = SELECTING.get(selection_of(record), rows)
            caption = f"{name} on the {rows}.{best}"
            pictures.append(curve_figure("selection", caption, name, points, step))
    if pictures:
        yield Heading("Training")
        yield Row(tuple(pictures))
    elif not record["config"]["model"].get("frozen"):
        yield Heading("Training")
        yield Paragraph("There are no curves: the folder has no event file with points of the training.")


def _costs(record: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the table of costs; an unfinished run has none."""
    rows = [(title, text) for title in COSTS if (text := fact_of(record, title))]
    if rows:
        yield Table("costs", "Sizes, times and memory.", columns(["", "value"]), tuple(rows))


def _data(record: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the table of data parts, if the record has it."""
    titles, rows = part_rows((record.get("data") or {}).get("parts") or {})
    if rows:
        yield Table("data", "The rows as the model read them.", columns(titles), tuple(map(tuple, rows)))


def _record_blocks(record: Mapping[str, Any], command: str) -> Iterator[Block]:
    yield Heading("Record")
    rows = [(title, text) for title in FACTS if title not in COSTS and (text := fact_of(record, title))]
    yield Table("facts", "Where the numbers come from.", columns(["", "value"], 2), tuple(rows))
    yield Fold("Settings (config.yaml)", (Code(yaml.safe_dump(record["config"], sort_keys=False)),))
    rest = {key: value for key, value in record.items() if key != "config"}
    yield Fold("Record (record.json, without the settings)", (Code(json.dumps(rest, indent=2, ensure_ascii=False)),))
    yield Paragraph(f"Made by `{command}`.")

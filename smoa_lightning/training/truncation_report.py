"""The table, the data and the figure of ``rank --truncate``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from smoa_lightning.common.atomic_files import replacing, write_json
from smoa_lightning.records.csv_text import csv_text
from smoa_lightning.records.metric_table import COMMON, COUNT, METRICS
from smoa_lightning.records.rank_figure import Panel, draw
from smoa_lightning.training.truncation import RunTruncation, TruncatedScore

FILES = ("truncation.md", "truncation.csv", "truncation.json", "truncation.png", "truncation.svg")


def write_truncation(runs: list[RunTruncation], folder: Path) -> str:
    """Write ``truncation.md``, ``.csv``, ``.json``, ``.png`` and ``.svg`` into a folder; return the Markdown."""
    text = markdown(runs)
    for name, content in (("truncation.md", text), ("truncation.csv", _csv(runs))):
        with replacing(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    write_json(folder / "truncation.json", [asdict(run) for run in runs])
    draw(panels(runs), "Scores of updates cut to a rank", [folder / "truncation.png", folder / "truncation.svg"])
    return text


def markdown(runs: list[RunTruncation]) -> str:
    """Return a table for each run: the rank, the error of the update, and each metric."""
    gain = _GAIN if any(map(_has_gain, runs)) else ""
    return "\n".join(["# Updates cut to a rank\n", f"{_EXPLANATION}{gain}", *map(_section, runs)])


_EXPLANATION = """In each layer, D = W' - W is replaced by its best approximation D_R of rank R (Eckart and Young).
The report rows are scored with W + D_R. Rank 0 is the model without any D. The last rank is the largest that the
method allows.
error: ||D_R - D|| / ||D|| over all layers. ±: one standard error over the items.
"""
_GAIN = "kept of the gain: the share of the change of nll from the first line to the last one that a rank keeps.\n"


def _section(run: RunTruncation) -> str:
    names = _metrics([run])
    header = ["rank", "error", *names, *(["kept of the gain"] if _has_gain(run) else [])]
    lines = [[*_row(run, score, names)] for score in run.scores]
    notes = _by_record("The run itself", run.recorded, names)
    if run.not_cut:
        notes += _by_record("The base model", run.base, names)
        others = f"{len(run.not_cut)} other trained parameters are not cut, such as {run.not_cut[0]}. Rank 0 keeps them"
        if len(run.not_cut) == 1:
            others = f"1 other trained parameter is not cut: {run.not_cut[0]}. Rank 0 keeps it"
        notes.append(f"{others}, so rank 0 is not the base model, and the gain is that of the layers alone.")
    table = "\n".join(f"| {' | '.join(line)} |" for line in [header, ["--:"] * len(header), *lines])
    title = f"## {run.label}: {run.method}, {run.layers} layers, largest rank {run.bound:,}"
    return "\n".join([title, "", table, "", *notes, ""])


def _by_record(model: str, recorded: dict[str, float], names: list[str]) -> list[str]:
    shown = ", ".join(f"{name} {recorded[name]:.4f}" for name in names if name in recorded)
    return [f"{model}, by the record: {shown}."] if shown else []


def _row(run: RunTruncation, score: TruncatedScore, names: list[str]) -> list[str]:
    shown = [f"{score.rank:,}", f"{score.error:.1%}"]
    for name in names:
        error = score.metrics.get(f"{name}_stderr")
        shown.append(f"{score.metrics[name]:.4f}" + ("" if error is None else f" ± {error:.4f}"))
    return [*shown, f"{kept_gain(run, score):.1%}"] if _has_gain(run) else shown


def _has_gain(run: RunTruncation) -> bool:
    first, last = run.scores[0].metrics, run.scores[-1].metrics
    return COMMON in first and first[COMMON] != last[COMMON]


def kept_gain(run: RunTruncation, score: TruncatedScore) -> float:
    """Return (nll_0 - nll_R) / (nll_0 - nll_full)."""
    first, last = run.scores[0].metrics[COMMON], run.scores[-1].metrics[COMMON]
    return (first - score.metrics[COMMON]) / (first - last)


def _metrics(runs: list[RunTruncation]) -> list[str]:
    """Return the metrics that all runs have, in the order of the table of metrics."""
    found = [run.scores[0].metrics.keys() for run in runs]
    return [name for name in METRICS if all(name in metrics for metrics in found)]


def _csv(runs: list[RunTruncation]) -> str:
    """Return a line for each run and rank, with all digits."""
    columns = list(dict.fromkeys(name for run in runs for score in run.scores for name in score.metrics))
    columns = [name for name in columns if name != COUNT] + [COUNT]
    lines: list[list[object]] = [["run", "method", "rank", "error", *columns]]
    for run in runs:
        for score in run.scores:
            values = [score.metrics.get(name) for name in columns]
            lines.append([run.label, run.method, score.rank, score.error, *values])
    return csv_text(lines)


def panels(runs: list[RunTruncation]) -> list[Panel]:
    """Return a panel for nll and one for the primary metric, with a curve for each run from rank 1 on."""
    shared = _metrics(runs)
    wanted = dict.fromkeys([COMMON, *(run.primary for run in runs)])
    result = []
    for name in [name for name in wanted if name in shared]:
        panel = Panel(name, xlabel="rank R", ylabel=METRICS[name].unit or name, yscale="linear")
        for number, run in enumerate(runs):
            label = run.label if run.label not in panel.curves else f"{run.label} ({number + 1})"
            cut = [score for score in run.scores if score.rank]
            panel.curves[label] = [score.metrics[name] for score in cut]
            panel.ranks[label] = [score.rank for score in cut]
            panel.levels[label] = run.scores[0].metrics[name]
        result.append(panel)
    return result

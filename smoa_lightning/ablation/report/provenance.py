"""Where the numbers of a report come from, and which facts differ between the compared runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.searches import short_values
from smoa_lightning.ablation.statistics import counted
from smoa_lightning.records.page.document import Block, Paragraph, Points, Table, columns
from smoa_lightning.records.published_rules import rules_of
from smoa_lightning.records.record import STUDY_FACTS
from smoa_lightning.records.selection import selection_of

# A fact that should be the same in all runs of a study -> how to read it from a record.
COMPARED_FACTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "backbone": lambda record: _backbone(record["backbone"]),
    "package versions": lambda record: record["environment"]["packages"],
    "Python": lambda record: record["environment"]["python"],
    "platform": lambda record: record["environment"]["platform"],
    "commit": lambda record: _commit(record["environment"]["git"]),
    "device": lambda record: record.get("device"),
    "threads": lambda record: record.get("threads"),
    "selection": selection_of,
    "published rules": lambda record: rules_of(record) or "none",
    "report rows": lambda record: _rows(record["data"]),
}


def provenance(analysis: Analysis, made_by: str) -> list[Block]:
    """Return the section: facts that all runs share, facts that differ, and the table of runs.

    Args:
        analysis: The numbers.
        made_by: The command that makes the report.
    """
    runs = analysis.study.finished
    shared, differing = [], []
    for name, read in COMPARED_FACTS.items():
        values = [_text(read(run.record)) for run in runs]
        counts = {value: values.count(value) for value in dict.fromkeys(values)}
        if len(counts) == 1:
            shared.append(f"{name}: {values[0]}")
        elif name == "report rows" and len({run.record["data"].get("task") for run in runs}) == len(counts):
            shared.append(f"{name} of several tasks: {_listed(counts)}")
        else:
            differing.append(f"different {name}: {_listed(counts)}")
    blocks: list[Block] = [
        Paragraph(
            f"Made by `{made_by}` from the records in `runs/`, after `python -m smoa_lightning ablate` had run the "
            "study. Each mean is over the rows of its cell in the table of runs (runs.csv). Each record has the whole "
            "configuration and the hashes; the item scores are in the same folder."
        ),
        Points(tuple(shared)),
    ]
    if differing:
        blocks += [Paragraph("Not the same in all runs, so a difference between cells may come from it:")]
        blocks += [Points(tuple(differing))]
    return [*blocks, run_table(analysis)]


def run_table(analysis: Analysis) -> Table:
    """Return the table of runs with score and signature."""
    rows = []
    for cell in analysis.cells:
        for run in cell.runs:
            facts = run.record[STUDY_FACTS]
            chosen = short_values(facts["parameters"])
            seconds = facts.get("seconds")
            reused = PurePath(facts["reused_from"]).parts[-3] if facts.get("reused_from") else ""
            row = (run.cell, chosen, facts["signature"], reused, str(run.seed), f"{run.score:.4f}")
            rows.append((*row, "" if seconds is None else f"{seconds:.0f}"))
    titles = ["cell", "searched values", "signature", "taken from study", "seed", "score", "seconds"]
    return Table("runs", "All finished final runs.", columns(titles, 4), tuple(rows), most_rows=12)


def _backbone(facts: Mapping[str, Any]) -> str:
    name = PurePath(str(facts["name"])).name if facts["source"] == "local" else facts["name"]
    found = facts.get("commit") or facts.get("revision") or ""
    hashes = ", ".join(f"{file} sha256 {digest[:12]}" for file, digest in (facts.get("sha256") or {}).items())
    return " ".join(filter(None, [f"{name} ({facts['source']})", str(found), hashes]))


def _commit(git: Mapping[str, Any] | None) -> str:
    if git is None:
        return "an installed package, not a source tree"
    return f"{git['commit'][:12]}{' with uncommitted changes' if git['dirty'] else ''}"


def _rows(data: Mapping[str, Any]) -> str:
    """Return task, number of report rows, and the hash of each split."""
    splits = {
        name: facts.get("sha256") or facts.get("commit") or ""
        for name, facts in sorted((data.get("splits") or {}).items())
        if isinstance(facts, Mapping)
    }
    rows = ((data.get("parts") or {}).get("report") or {}).get("rows", "")
    hashes = ", ".join(f"{name} sha256 {str(digest)[:12]}" for name, digest in splits.items())
    return " ".join(
        filter(None, [f"{data.get('task')} ({data.get('source')})", f"{rows} rows" if rows else "", hashes])
    )


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def _listed(counts: Mapping[str, int]) -> str:
    return "; ".join(f"{value} ({counted(count, 'run')})" for value, count in counts.items())

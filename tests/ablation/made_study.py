"""Makes a study folder with the layout of a real one, and with known effects of cells, seeds and items."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LR = "model.optimizer.init_args.lr"
RATES = (1e-3, 1e-2, 3e-2, 1e-1)  # of each search; the last is the best


CELLS: dict[str, dict[str, Any]] = {
    "method=lora": {"labels": {"method": "lora"}, "accuracy": 0.5, "parameters": 1000, "r": 8, "rank": 8.0},
    "method=better": {"labels": {"method": "better"}, "accuracy": 0.8, "parameters": 1000, "r": 8, "rank": 300.0},
    "method=same": {"labels": {"method": "same"}, "accuracy": 0.5, "parameters": 4000, "r": 8, "rank": 90.0},
}


def make_study(
    folder: Path,
    cells: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int] = (0, 1, 2),
    items: int = 300,
    direction: str = "maximize",
    metric: str = "acc",
    search: bool = False,
    missing: Sequence[tuple[str, int]] = (),
    fewshot: bool = False,
) -> dict[str, np.ndarray]:
    """Write a study; return the item scores of each cell, (seeds, items), and of the base model, (items,).

    With ``fewshot`` the base model has other prompts and other scores for each seed, (seeds, items).

    Args:
        folder: The study folder.
        cells: Name -> ``labels``, ``accuracy``, ``parameters`` and optionally ``r`` and ``num_subspaces``.
        seeds: Seeds of every cell.
        items: Number of items of every run.
        direction: Direction of the objective.
        metric: ``acc``, or ``perplexity``, which is not a mean over items.
        search: Write trials too.
        missing: Cell and seed of missing runs.
        fewshot: Whether prompts have solved rows, chosen by the seed of the run.
    """
    rng = np.random.default_rng(0)
    easy = rng.uniform(size=items)  # an item is easy for all cells or for none
    names = list(cells)
    axes = list(next(iter(cells.values()))["labels"])
    description = {
        "format": 1, "name": "made", "seeds": list(seeds), "dropped": [], "retries": 1, "keep": "none",
        "axes": {axis: list(dict.fromkeys(cell["labels"][axis] for cell in cells.values())) for axis in axes},
        "cells": {name: _cell(facts, metric, search) for name, facts in cells.items()},
        "baselines": dict.fromkeys(names, names[0]), "untouched": dict.fromkeys(names, names[0]),
        "objective": {"metric": metric, "direction": direction},
        "search": _search() if search else None,
    }  # fmt: skip
    for cell in description["cells"].values() if fewshot else ():
        cell["settings"]["data"] = {"num_fewshot": 2}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(description))
    scores: dict[str, np.ndarray] = {}
    size = (len(seeds), items) if fewshot else items
    base_model = (rng.uniform(size=size) < 0.35 + 0.3 * (easy - 0.5)).astype(float)
    for name, facts in cells.items():
        chance = np.clip(facts["accuracy"] + 0.3 * (easy - 0.5) + rng.normal(0, 0.01, (len(seeds), 1)), 0, 1)
        scores[name] = (rng.uniform(size=(len(seeds), items)) < chance).astype(float)
        for row, seed in enumerate(seeds):
            if (name, seed) not in missing:
                scores_base = name == names[0] and (row == 0 or fewshot)
                base = (base_model[row] if fewshot else base_model) if scores_base else None
                _run(folder, name, facts, seed, scores[name][row], metric, base, {LR: RATES[-1]} if search else {})
    if search:
        _trials(folder, names)
    return {**scores, "base model": base_model}


def _cell(facts: Mapping[str, Any], metric: str, search: bool) -> dict[str, Any]:
    arguments = {key: facts[key] for key in ("r", "num_subspaces") if key in facts}
    return {
        "signature": "s", "labels": dict(facts["labels"]), "values": dict(facts["labels"]), "report_metric": metric,
        "search_metric": "nll" if search else "", "settings": {"model": {"adapter": {"init_args": arguments}}},
    }  # fmt: skip


def _run(
    folder: Path, cell: str, facts: Mapping[str, Any], seed: int, right: np.ndarray, metric: str,
    base: np.ndarray | None, values: Mapping[str, Any],
) -> None:  # fmt: skip
    run = folder / "runs" / f"{cell},seed={seed}"
    run.mkdir(parents=True)
    score = float(right.mean()) if metric == "acc" else float(5 - 2 * right.mean())
    metrics = {
        f"report/{metric}": score, "parameters/trainable": facts["parameters"],
        "cost/peak_memory_mb": 900.0 + facts["parameters"] / 100,
        "parameters/adapter_bytes": 4 * facts["parameters"], "rank/effective_mean": facts.get("rank", -1.0),
        "cost/tokens_per_second": 1000.0 + seed, "cost/step_seconds": 0.1 + 0.01 * seed,
    }  # fmt: skip
    if base is not None:
        metrics |= {f"base/{metric}": float(base.mean()), f"base/{metric}_stderr": 0.02}
    place = {"study": "made", "cell": cell, "stage": "final", "seed": seed, "trial": None, "parameters": values}
    record = {
        "name": cell, "signature": "x", "status": "finished", "metrics": metrics, "device": "cpu", "threads": 1,
        "ablation": {**place, "signature": f"{seed:08x}", "seconds": 10.0,
                     "worker": "host:1", "reused_from": None},
        "backbone": {"source": "local", "name": "/somewhere/smollm2", "revision": None, "sha256": {"m": "ab" * 32}},
        "data": {"task": "piqa", "source": "local", "splits": {"train": {"sha256": "cd" * 32}},
                 "parts": {"report": {"rows": len(right)}}},
        "environment": {"packages": {"torch": "2.13.0"}, "python": "3.11", "platform": "Linux", "git": None},
    }  # fmt: skip
    (run / "record.json").write_text(json.dumps(record))
    _items(run / "items.jsonl", right)
    if base is not None:
        _items(run / "base_items.jsonl", base)


def _items(file: Path, right: np.ndarray) -> None:
    lines = []
    for item, value in enumerate(right):
        predictions = {f"prediction_{name}": int(value) for name in ("acc", "acc_norm", "acc_token")}
        lines.append(json.dumps({"row": item, "label": 1, "log_likelihood": [-1.25, -2.5], **predictions}))
    file.write_text("\n".join(lines) + "\n")


def _search() -> dict[str, Any]:
    return {
        "parameters": {LR: {"low": 1e-3, "high": 1e-1, "log": True, "step": None, "integer": False}}, "trials": 4,
        "sampler": {"name": "tpe"}, "pruner": {"name": "none"}, "seeds": [1000],
        "objective": {"metric": "nll", "direction": "minimize"},
    }  # fmt: skip


def _trials(folder: Path, names: Sequence[str]) -> None:
    searches = {}
    for name in names:
        values = [0.9, 0.7, 0.6, 0.5]  # the largest rate is the best
        trials = [
            {"number": n, "state": "COMPLETE", "value": v, "parameters": {LR: rate}, "seconds": 3.0, "reason": "",
             "intermediate": {}}
            for n, (rate, v) in enumerate(zip(RATES, values, strict=True))
        ]  # fmt: skip
        trials.append({**trials[0], "number": 4, "state": "FAIL", "value": None, "reason": "UserError: it broke"})
        searches[name] = {"metric": "nll", "direction": "minimize", "best": 3, "importances": {}, "trials": trials}
    failed = [{"run": f"{names[-1]},seed=9", "cell": names[-1], "attempts": 2, "reason": "UserError: no memory"}]
    (folder / "trials.json").write_text(json.dumps({"format": 1, "searches": searches, "failed": failed}))


def table(out: Path, name: str) -> list[dict[str, str]]:
    """Return the rows of a CSV table of a report."""
    with (out / "tables" / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))

"""Makes folders of finished runs with the layout of real ones, and with chosen scores of each row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smoa_lightning.common.checksums import sha256, write_sealed
from smoa_lightning.data.rows.task_rows import RowSettings, TaskRows
from smoa_lightning.data.tasks import get_task

LORA = {"class_path": "peft.LoraConfig", "init_args": {"r": 4, "lora_alpha": 32, "use_dora": False}}
SMOA = {"class_path": "smoa_lightning.adapters.SMoAConfig", "init_args": {"r": 4, "num_subspaces": 2}}


def embedded_digest(task: str) -> str:
    """Return the digest of a task's embedded report rows."""
    rows = TaskRows(get_task(task), get_task(task).protocol(), RowSettings(source="embedded"))
    return rows.rows(rows.report_split).sha256


def choice_items(right: Sequence[float], task: str | None = None) -> list[dict[str, Any]]:
    """Return items with two choices; the label of row n is n modulo 2."""
    items = []
    for row, each in enumerate(right):
        label = row % 2
        said = label if each else 1 - label
        scores = [-1.0, -2.0] if said == 0 else [-2.0, -1.0]
        items.append({"row": row, "label": label, "log_likelihood": scores, "prediction_acc": said} | _task(task))
    return items


def reply_items(nll: Sequence[float], tokens: Sequence[int]) -> list[dict[str, Any]]:
    """Return items with replies that are compared as texts."""
    return [
        {"row": row, "nll": n, "tokens": t, "reference": f"gold {row}", "reply": f"reply {row} of {n:.2f}"}
        for row, (n, t) in enumerate(zip(nll, tokens, strict=True))
    ]


def make_run(
    folder: Path,
    items: Sequence[Mapping[str, Any]],
    base: Sequence[Mapping[str, Any]] | None = None,
    *,
    seed: int = 0,
    adapter: Mapping[str, Any] = LORA,
    task: str = "piqa",
    status: str = "finished",
    digest: str | None = "d" * 64,
    protocol: str = "likelihood",
    **record: Any,
) -> Path:
    """Write a run.

    Args:
        folder: Its folder.
        items: The items after training.
        base: The items of the base model.
        seed: Seed of the run.
        adapter: Settings of its adapter.
        task: Its task.
        status: Status of the record.
        digest: Digest of its report rows.
        protocol: How its task is scored.
        record: Further entries of the record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics: dict[str, float] = {"parameters/trainable": 100, "cost/train_seconds": 12.5, "cost/peak_memory_mb": 640}
    files = {}
    for part, name, lines in (("report", "items.jsonl", items), ("base", "base_items.jsonl", base)):
        if lines is not None:
            (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            files[name] = sha256(folder / name)
            metrics |= _metrics(part, lines)
    split = get_task(task).report_split if task in ("piqa", "gsm8k", "chat") else "validation"
    splits = {"train": {"sha256": "e" * 64}, split: {"sha256": digest, "commit": None}}
    data = {"task": task, "task_version": 1, "protocol": protocol, "source": "embedded", "splits": splits}
    facts = {"signature": folder.name, "status": status, "data": data, "metrics": metrics, "files": files}
    write_sealed(folder / "record.json", _settings(folder, seed, adapter, task) | facts | record)
    return folder


def _settings(folder: Path, seed: int, adapter: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Return the entries of a record that are known before the run."""
    strategy = "lora" if "Lora" in adapter["class_path"] else "smoa"
    return {
        "name": f"{task}-{strategy}-r4-seed{seed}-embedded",
        "config": {
            "seed_everything": seed,
            "model": {"adapter": adapter, "adapter_seed": seed, "frozen": False},
            "data": {"task": task, "source": "embedded", "path": None, "seed": seed, "bad_rows": "error"},
            "run": {"folder": str(folder)},
        },
        "hyperparameters": {"strategy": strategy, "rank": 4},
        "backbone": {"source": "embedded", "name": "embedded", "sha256": {"model.safetensors": "b" * 64}},
        "environment": {"packages": {"torch": "2.13.0"}, "git": None},
    }


def _metrics(part: str, items: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    if not items:
        return {}
    if "nll" in items[0]:
        nll, tokens = (np.array([item[key] for item in items]) for key in ("nll", "tokens"))
        return {
            f"{part}/nll": float((nll / tokens).mean()),
            f"{part}/perplexity": float(np.exp(nll.sum() / tokens.sum())),
            f"{part}/bleu": 5.0,
        }
    right = np.array([item["prediction_acc"] == item["label"] for item in items], dtype=float)
    error = float(right.std() / np.sqrt(len(right) - 1))
    return {f"{part}/acc": float(right.mean()), f"{part}/acc_stderr": error, f"{part}/num_items": len(right)}


def _task(name: str | None) -> dict[str, str]:
    return {} if name is None else {"task": name}

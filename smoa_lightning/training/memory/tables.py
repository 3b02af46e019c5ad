"""The estimates of memory and disk as text and as JSON."""

from __future__ import annotations

from typing import Any

from smoa_lightning.records.tables import text_table
from smoa_lightning.training.memory.disk import DiskEstimate
from smoa_lightning.training.memory.estimate import MemoryEstimate
from smoa_lightning.training.memory.live_bytes import KINDS
from smoa_lightning.training.memory.step import StepMemory

NAMES = {False: "without_checkpointing", True: "with_checkpointing"}


def size_text(size: float) -> str:
    """Return a number of bytes in decimal units.

    >>> size_text(0), size_text(950), size_text(1_217_552), size_text(16_060_522_496)
    ('0 B', '950 B', '1.2 MB', '16.1 GB')
    """
    for unit in ("B", "kB", "MB"):
        if size < 999.95:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def memory_text(estimate: MemoryEstimate, optimizer: str) -> str:
    """Return the table of a step, with a line for each kind of memory."""
    shape = estimate.shape
    decides = "data.batch_size" if shape.pixels else "data.batch_size, data.max_length; --length changes the tokens"
    lines = [f"memory of a training step, {shape} ({decides}):"]
    known = {on: step for on, step in estimate.steps.items() if isinstance(step, StepMemory)}
    if known:
        order = sorted(known)
        labels = {False: "no checkpointing", True: "gradient checkpointing"}
        titles = ["", *(text for on in order for text in (labels[on], "at the peak"))]
        rows = []
        for kind in KINDS:
            name = f"optimizer ({optimizer})" if kind == "optimizer" else kind
            rows.append(
                (name, *(size_text(size[kind]) for on in order for size in (known[on].largest, known[on].peak)))
            )
        rows.append(("total", *(text for on in order for text in ("", size_text(known[on].total)))))
        lines.append(text_table(tuple(titles), rows, words=1))
    for on, reason in estimate.steps.items():
        if isinstance(reason, str):
            lines.append(f"{'with' if on else 'without'} gradient checkpointing: not known ({reason})")
    lines.append(
        "not counted: Python and its libraries, work memory of kernels, and what the allocator adds; on a CPU the "
        "process may hold up to twice as much (docs/memory.md)"
    )
    return "\n".join(lines)


def memory_facts(estimate: MemoryEstimate, optimizer: str) -> dict[str, Any]:
    """Return the estimate for JSON; all sizes are bytes."""
    shape = estimate.shape
    facts: dict[str, Any] = {
        "rows": shape.rows,
        "length": shape.length,
        "targets": shape.targets,
        "optimizer": optimizer,
        "gradient_checkpointing": estimate.checkpointing,
    }
    if shape.pixels is not None:
        facts["pixels"] = list(shape.pixels)
    for on, step in sorted(estimate.steps.items()):
        if isinstance(step, str):
            facts[NAMES[on]] = {"unknown": step}
        else:
            facts[NAMES[on]] = {"largest": dict(step.largest), "peak": dict(step.peak), "total": step.total}
    return facts


def disk_text(disk: DiskEstimate) -> str:
    """Return one line about the disk."""
    return (
        f"disk: checkpoint about {size_text(disk.checkpoint)}, folder of the run about {size_text(disk.at_end)} at the "
        f"end and at most {size_text(disk.largest)} during training"
    )


def disk_facts(disk: DiskEstimate) -> dict[str, int]:
    """Return the estimate for JSON, in bytes."""
    return {
        "adapter": disk.adapter,
        "checkpoint": disk.checkpoint,
        "run_at_end": disk.at_end,
        "run_largest": disk.largest,
    }

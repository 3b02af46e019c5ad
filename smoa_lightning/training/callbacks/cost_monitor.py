"""The cost of a run: tokens per second, seconds per step, peak memory."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback


def peak_memory_megabytes() -> float:
    """Return the peak memory in MB since :func:`reset_peak_memory`, of the GPU if there is one, else of the process.

    Outside Linux, the peak of a process cannot be reset, and counts from the start of the process.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # macOS counts bytes, Linux KiB


def reset_peak_memory() -> None:
    """Reset the peak, since a process can make several runs."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


class CostMonitor(Callback):
    """Log ``cost/tokens_per_second``, ``cost/step_seconds`` and ``cost/peak_memory_mb`` over windows of steps.

    The windows have only training batches, without validation and the writing of checkpoints. A model that reads images
    has ``cost/images_per_second`` instead.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        """Set the length of a window.

        Args:
            every_n_steps: Optimizer steps of a window.
        """
        self.every_n_steps = every_n_steps
        self.unit = "tokens"
        self.seconds = 0.0  # of the current window
        self.total_seconds = 0.0
        self.total_tokens = 0
        self._began = 0.0
        self._steps = 0
        self._window_tokens = 0
        self._window_step = 0
        self._tokens_before = 0

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Set what is counted, also for a resumed run that has no step left."""
        self.unit = "images" if pl_module.location.head.reads_images else "tokens"

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin the first window."""
        self._window_step = trainer.global_step

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Start the clock of a micro-batch."""
        self._began = time.perf_counter()
        self._tokens_before = pl_module.seen_tokens

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop the clock; log when the window is full."""
        elapsed, tokens = time.perf_counter() - self._began, pl_module.seen_tokens - self._tokens_before
        self.seconds += elapsed
        self.total_seconds += elapsed
        self._window_tokens += tokens
        self.total_tokens += tokens
        self._steps = trainer.global_step  # of the whole training, like the totals
        steps = trainer.global_step - self._window_step
        if steps >= self.every_n_steps:
            pl_module.log_dict(
                {
                    f"cost/{self.unit}_per_second": self._window_tokens / self.seconds,
                    "cost/step_seconds": self.seconds / steps,
                    "cost/peak_memory_mb": peak_memory_megabytes(),
                }
            )
            self.seconds, self._window_tokens, self._window_step = 0.0, 0, trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        """Return the totals for a resumed run."""
        return {"total_seconds": self.total_seconds, "total_tokens": self.total_tokens, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the totals of the interrupted run."""
        self.total_seconds = state_dict["total_seconds"]
        self.total_tokens = state_dict["total_tokens"]
        self._steps = state_dict.get("steps", 0)  # without them in checkpoints before version 0.2

    def summary(self) -> dict[str, float]:
        """Return the costs of the whole training for the record."""
        return {
            "train_seconds": self.total_seconds,
            f"train_{self.unit}": self.total_tokens,
            "step_seconds": self.total_seconds / self._steps if self._steps else 0.0,
            f"{self.unit}_per_second": self.total_tokens / self.total_seconds if self.total_seconds else 0.0,
            "peak_memory_mb": peak_memory_megabytes(),
        }

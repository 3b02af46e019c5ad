"""The valid range of each setting that is a number, and the values that Lightning takes but this package refuses.

The early check, the real parser, the classes and the JSON Schema use the same tables.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smoa_lightning.common.errors import UserError

LARGEST_SEED = 2**32 - 1  # NumPy takes no larger seed
LARGEST = 2**31 - 1  # products of two such numbers still fit into 64 bits
MOST_WORKERS = 512
MOST_DEVICES = 4096  # of one machine; Lightning makes an object for each


@dataclass(frozen=True)
class Range:
    """A range of numbers.

    Args:
        low: Its lower end.
        high: Its upper end; ``None`` without one.
        without_low: Whether the lower end is outside.
        without_high: Whether the upper end is outside.
        also: A further valid number.
    """

    low: float
    high: float | None = None
    without_low: bool = False
    without_high: bool = False
    also: int | None = None

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.without_low else value >= self.low
        below = self.high is None or (value < self.high if self.without_high else value <= self.high)
        return (above and below) or value == self.also

    def __str__(self) -> str:
        """Return the words after ``must be``."""
        words = f"{'above' if self.without_low else 'at least'} {self.low}"
        if self.high is not None:
            words += f" and {'below' if self.without_high else 'at most'} {self.high}"
        return f"{self.also} or {words}" if self.also is not None else words

    def schema(self) -> dict[str, Any]:
        """Return the range as keywords of JSON Schema."""
        if self.also is not None:
            # -1 is next to the range: 0 is refused too
            words: dict[str, Any] = {"minimum": self.also, "not": {"enum": [*range(self.also + 1, int(self.low))]}}
            return words if self.high is None else words | {"maximum": self.high}
        words = {"exclusiveMinimum" if self.without_low else "minimum": self.low}
        if self.high is not None:
            words["exclusiveMaximum" if self.without_high else "maximum"] = self.high
        return words


SEED = Range(0, LARGEST_SEED)
COUNT = Range(1, LARGEST)
COUNT_OR_NONE = Range(0, LARGEST)
COUNTS = (
    *("batch_size", "eval_batch_size", "eval_max_tokens", "limit_train_rows", "limit_report_rows", "bucket_batches"),
    *("train_per_class", "pad_multiple", "max_new_tokens", "num_beams", "stream_buffer_rows", "stream_epoch_batches"),
)

RANGES: Mapping[str, Range] = {
    "seed_everything": SEED,
    "model.adapter_seed": SEED,
    "model.warmup": Range(0),
    "model.head_lr": Range(0, without_low=True),
    "model.budget_tolerance": Range(0, 1, without_high=True),
    "model.distillation.weight": Range(0, 1),
    "model.distillation.temperature": Range(0, without_low=True),
    "model.distillation.cache_top": COUNT,
    "model.optimizer.init_args.lr": Range(0, without_low=True),
    "model.optimizer.init_args.weight_decay": Range(0),
    "data.seed": SEED,
    **{f"data.{name}": COUNT for name in COUNTS},
    "data.selection_rows": COUNT_OR_NONE,
    "data.num_fewshot": COUNT_OR_NONE,
    "data.first_label": Range(0, 1),
    "data.num_workers": Range(0, MOST_WORKERS),
    "data.max_length": Range(2, LARGEST),
    "trainer.devices": Range(1, MOST_DEVICES, also=-1),
    "trainer.num_nodes": COUNT,
    "trainer.max_epochs": Range(1, also=-1),
    "trainer.min_epochs": Range(0),
    "trainer.max_steps": Range(1, also=-1),
    "trainer.min_steps": Range(0),
    "trainer.limit_train_batches": Range(0, without_low=True),
    "trainer.limit_val_batches": Range(0),
    "trainer.limit_test_batches": Range(0),
    "trainer.limit_predict_batches": Range(0),
    "trainer.val_check_interval": Range(0, without_low=True),
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.num_sanity_val_steps": Range(-1),
    "trainer.log_every_n_steps": Range(0),
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.gradient_clip_val": Range(0),
    "trainer.reload_dataloaders_every_n_epochs": Range(0),
    "checkpoint.every_n_steps": COUNT,
    "pictures.layers": COUNT_OR_NONE,
    "pictures.min_steps": COUNT_OR_NONE,
    "pictures.max_side": COUNT_OR_NONE,
}
# A whole number of these counts batches; another number is a share.
SHARES = {f"trainer.limit_{name}_batches" for name in ("train", "val", "test", "predict")}
SHARES |= {"trainer.val_check_interval", "trainer.overfit_batches"}

# Settings that the parser, or the class behind them, takes as null although a run cannot go on with it.
NEVER_NULL = {"model.optimizer.init_args.lr": "a number above 0", "run.root": "the name of a folder, such as runs"}

PRECISIONS = (None, 32, "32", "32-true", 16, "16", "16-mixed", "bf16", "bf16-mixed")
SPAWNING = ("ddp_spawn", "ddp_fork", "ddp_notebook")


def check_value(key: str, value: Any, where: str = "") -> None:
    """Refuse a value that has the right type but no meaning.

    Args:
        key: The full key of the setting.
        value: Its value; lists and mappings are not checked.
        where: Start of the message: file and line.

    Raises:
        UserError: The message names the valid range.
    """
    if key in RANGES and isinstance(value, str) and re.fullmatch(r"[-+]?\d{1,4000}", value.strip()):
        value = int(value)  # trainer.devices takes texts too, and a text may be a number
    if key in NEVER_NULL and value in (None, "null"):
        raise UserError(f"{where}{key} is {value}, but takes {NEVER_NULL[key]}")
    if key == "seed_everything" and value is False:
        raise UserError(f"{where}seed_everything is false, but every run has a seed: set it to a number, such as 0")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(key, value, where)
    if key == "trainer.precision" and isinstance(value, int | str) and value not in PRECISIONS:
        raise UserError(
            f"{where}trainer.precision is {value!r}, but takes 32-true, bf16-mixed or 16-mixed: the trained parameters "
            "stay in float32, and model.backbone.dtype sets the number format of frozen weights"
        )
    if key == "trainer.strategy" and isinstance(value, str) and value.startswith(SPAWNING):
        raise UserError(
            f"{where}trainer.strategy is {value!r}, but takes auto, ddp or another strategy that starts each process "
            "by the command line: a copied process would not have the state of this run"
        )


def _check_number(key: str, value: float, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}{key} is {value}, but must be a finite number{_and(key)}")
    valid = RANGES.get(key)
    if valid is not None and value not in valid:
        raise UserError(f"{where}{key} is {shown(value)}, but must be {valid}")
    if key in SHARES and isinstance(value, float) and not 0 <= value <= 1:
        raise UserError(f"{where}{key} is {value}, but must be a share from 0 to 1 or a whole number of batches")
    if abs(value) >= 2**63 and isinstance(value, int):
        raise UserError(f"{where}{key} is {shown(value)}, but must be below 2^63")


def _and(key: str) -> str:
    return f", {RANGES[key]}" if key in RANGES else ""


def shown(value: float) -> str:
    """Return a number for a message, without thousands of digits.

    >>> shown(10**5000)
    'a whole number of more than 30 digits'
    """
    return str(value) if abs(value) < 10**30 else "a whole number of more than 30 digits"

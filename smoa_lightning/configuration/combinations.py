"""Settings that are valid alone but not together: refused before heavy libraries are imported, and after the parser."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.configuration.settings import schema
from smoa_lightning.configuration.trainer_options import check_flags
from smoa_lightning.configuration.yaml_files import read_flag
from smoa_lightning.records.selection import HELD_OUT, ON_TRAINED

Value = Callable[[str], Any]
# Variables that launchers set: torchrun, SLURM, LSF, Open MPI, and processes that are started by hand.
LAUNCHERS = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE", "NODE_RANK", "GROUP_RANK")
KERNELS = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
HALF = (16, "16", "16-mixed")
CACHE = "model.distillation.cache"
NOTHING = (None, "", "null")


def check_combinations(value: Value) -> None:
    """Refuse settings that contradict each other or this machine.

    Args:
        value: Returns the value of a key, or its default; ``None`` if it is unknown.

    Raises:
        UserError: The message names the settings and what they must be.
    """
    of_data = (_two_selections, _two_limits, _rules, _padding, _augmentation)
    of_trainer = (_endless, _never_selected, _launcher, _half_precision)
    for rule in (*of_data, *of_trainer, _short_warmup, _kernel, check_flags):
        rule(value)


def check_teacher(given: Mapping[str, Any]) -> None:
    """Refuse settings of a distillation without a teacher, and those of a cache without a folder.

    Args:
        given: Full key -> value of the settings in files and flags.

    Raises:
        UserError: The message names the missing setting.
    """
    own = [key for key in given if key.startswith("model.distillation.")]
    if own and given.get("model.distillation.teacher") in NOTHING:
        other = next((key for key in own if not key.endswith(".teacher")), own[0])
        raise UserError(
            f"{other} is set, but model.distillation.teacher is not: name a run, a folder of a model or a model on the "
            "hub, or set model.distillation to null"
        )
    if given.get(f"{CACHE}_top") not in NOTHING and given.get(f"{CACHE}_folder") in NOTHING:
        raise UserError(f"{CACHE}_top is set, but {CACHE}_folder is not: name a folder of the cache, or remove it")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _endless(value: Value) -> None:
    if value("trainer.max_epochs") == -1 and value("trainer.max_steps") in (-1, None):
        raise UserError(
            "trainer.max_epochs is -1 and trainer.max_steps is not set, so training would never end: set one of them "
            "to at least 1"
        )


def _never_selected(value: Value) -> None:
    """Refuse epochs without validation; ``training.length_check`` knows the number of batches."""
    every, epochs = value("trainer.check_val_every_n_epoch"), value("trainer.max_epochs")
    if value("data.selection_rows") == 0 or value("trainer.limit_val_batches") == 0:
        return
    if _is_whole(every) and _is_whole(epochs) and 0 < epochs < every:
        raise UserError(
            f"trainer.check_val_every_n_epoch is {every}, but trainer.max_epochs is {epochs}, so no adapter would be "
            f"selected: set it to at most {epochs}, or set data.selection_rows to 0"
        )


def _rules(value: Value) -> None:
    """Refuse settings that published rules decide."""
    rules = value("data.rules")
    if rules in (None, "null"):
        return
    for key, none in (("num_beams", None), ("max_new_tokens", None), ("chat_template", None), ("num_fewshot", 0)):
        if (given := value(f"data.{key}")) not in (none, None, False):
            raise UserError(f"data.{key} is {given}, but data.rules: {rules} decides it: remove data.{key}")


def _two_selections(value: Value) -> None:
    rows = value("data.selection_rows")
    selection = value("data.selection")
    if selection not in (None, HELD_OUT) and rows is not None:
        raise UserError(
            f"data.selection_rows is {rows}, but data.selection is {selection}, which holds no training rows out: "
            "remove data.selection_rows"
        )
    for key, why in (
        ("train_per_class", "trains on a fixed order of all rows"),
        ("num_fewshot", "has no other rows for the prompts"),
    ):
        if selection == ON_TRAINED and (given := value(f"data.{key}")) not in (None, 0):
            raise UserError(
                f"data.{key} is {given}, but data.selection is {ON_TRAINED}, which scores the trained rows and {why}: "
                f"remove data.{key}"
            )
    trained, reported = value("data.limit_train_rows"), value("data.limit_report_rows")
    if selection == ON_TRAINED and _is_whole(trained) and _is_whole(reported) and reported > trained:
        raise UserError(
            f"data.limit_report_rows is {reported}, but data.selection is {ON_TRAINED} and only {trained} rows are "
            f"trained: set it to at most {trained}"
        )


def _two_limits(value: Value) -> None:
    rows, each = value("data.limit_train_rows"), value("data.train_per_class")
    if rows is not None and each is not None:
        raise UserError(
            f"data.limit_train_rows is {rows} and data.train_per_class is {each}, but both choose training rows: "
            "remove one of them"
        )


def _augmentation(value: Value) -> None:
    """Refuse changes of images that are not in the form of classes with their arguments."""
    specs = value("data.augmentation")
    specs = read_flag(specs, "data.augmentation").value if isinstance(specs, str) else specs
    entries = specs if isinstance(specs, list) else [] if specs is None else [specs]
    for number, spec in enumerate(entries, start=1):
        keys = set(spec) if isinstance(spec, Mapping) else set()
        known = isinstance(specs, list) and {"class_path"} <= keys <= {"class_path", "init_args"}
        if not (known and isinstance(spec["class_path"], str) and isinstance(spec.get("init_args") or {}, Mapping)):
            raise UserError(
                f"data.augmentation: entry {number} is {spec!r}, but the setting takes a list of mappings with "
                "class_path and init_args, such as "
                "[{class_path: torchvision.transforms.v2.RandomHorizontalFlip, init_args: {p: 0.5}}]"
            )


def _short_warmup(value: Value) -> None:
    warmup, steps = value("model.warmup"), value("trainer.max_steps")
    if isinstance(warmup, int | float) and warmup >= 1 and _is_whole(steps) and 0 < steps < warmup:
        raise UserError(
            f"model.warmup is {warmup:g} steps, but trainer.max_steps is {steps}: set model.warmup to at most {steps}, "
            "or to a share of all steps below 1"
        )


def _padding(value: Value) -> None:
    multiple, longest = value("data.pad_multiple"), value("data.max_length")
    if _is_whole(multiple) and _is_whole(longest) and multiple > longest:
        raise UserError(
            f"data.pad_multiple is {multiple}, but must be at least 1 and at most data.max_length, which is {longest}"
        )


def _launcher(value: Value) -> None:
    nodes = value("trainer.num_nodes")
    if _is_whole(nodes) and nodes > 1 and not any(name in os.environ for name in LAUNCHERS):
        raise UserError(
            f"trainer.num_nodes is {nodes}, but no launcher has started this process, so it would wait for the other "
            "machines forever: start it with torchrun or srun on each of them, or set it to 1"
        )


def _kernel(value: Value) -> None:
    kernel = value("model.backbone.attn_implementation")
    library = KERNELS.get(str(kernel))
    if library is not None and importlib.util.find_spec(library) is None:
        raise UserError(
            f"model.backbone.attn_implementation is {kernel!r}, but the library {library} is not installed; 'sdpa' and "
            "'eager' need no further library"
        )


def _half_precision(value: Value) -> None:
    if value("trainer.precision") not in HALF:
        return
    if value("trainer.accelerator") == "cpu":
        raise UserError("trainer.precision is 16-mixed, but the CPU has no float16 training: set it to bf16-mixed")
    adapter = value("model.adapter")
    if "AdaLora" in str(adapter if isinstance(adapter, str) else value("model.adapter.class_path")):
        raise UserError(
            "trainer.precision is 16-mixed, but AdaLoRA takes its importances from every step, and the loss scaler "
            "leaves steps out: set it to bf16-mixed or 32-true"
        )


def check_task(name: Any) -> None:
    """Refuse a task that is neither of the package nor registered by a program that has imported the tasks.

    Raises:
        UserError: The task is unknown; the message names the nearest tasks.
    """
    names = schema()["properties"]["data"]["properties"]["task"]["x-names"]
    registered = getattr(sys.modules.get("smoa_lightning.data.tasks"), "TASKS", ())
    if isinstance(name, str) and name not in names and name not in registered:
        raise UserError(f"data.task: unknown task {name!r}; did you mean {nearest(name, names)}?")

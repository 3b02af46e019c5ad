"""The record of a run: its settings, environment and results. Imports no torch, so that reports are fast."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoa_lightning.common.checksums import read_sealed, sha256
from smoa_lightning.common.errors import UserError

logger = logging.getLogger(__name__)
RECORD = "record.json"
LOCK = ".lock"  # in the folder of a run; holds the signature of the run that locked it
STUDY_FACTS = "ablation"  # key of the facts about the study that a run belongs to
EVALUATION = "evaluation.json"
ITEMS = "items.jsonl"
BASE_ITEMS = f"base_{ITEMS}"
GENERAL_ITEMS = "general_items.jsonl"  # scores of the documents of the general text
BASE_GENERAL_ITEMS = f"base_{GENERAL_ITEMS}"
BASE_SCORES = (BASE_ITEMS, BASE_GENERAL_ITEMS)
SCORES = (*BASE_SCORES, ITEMS, GENERAL_ITEMS)
PREDICTIONS = "predictions.jsonl"
FILES = "files"  # key of the checksums of a run's other files: name -> SHA-256
STUDY, TRIALS = "study.json", "trials.json"  # in the folder of a study
ADAPTER_FACTS = "smoa_lightning.json"  # in every adapter folder
SECTIONS = ("config", "hyperparameters", "backbone", "data", "metrics", "environment")  # of every record
PACKAGES = ("smoa-lightning", "torch", "lightning", "peft", "transformers", "datasets", "torchmetrics", "tokenizers",
            "pillow", "torchvision", "timm")  # fmt: skip

# Settings that change the folder or the speed of a run, but not its result.
NOT_CONTENT = {
    "run",
    "config",
    "ckpt_path",  # the checkpoint's content is part of the facts
    "weights_only",
    "checkpoint",
    "cost_monitor",
    "pictures",
    "sample_predictions",
    "data.num_workers",
    "data.pin_memory",
    "data.cache",
    "trainer.logger",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
}
# Settings that earlier versions do not have: an empty one does not count, so that their runs keep their signatures.
NOT_CONTENT_IF_EMPTY = {
    *(
        "model.backbone.allow_missing",
        "model.backbone.split_fused",
        "model.distillation",
        "model.distillation.cache_folder",
        "model.distillation.cache_top",
        "model.head_init",
        "model.no_weight_decay",
        "model.prompt",
    ),
    *("data.augmentation", "data.first_label", "data.rules"),
}
EMPTY_COUNTS_AS = {"data.num_beams": 1}  # the default of earlier versions, which have no empty value

# Settings that later versions added to our strategies, with the value at which a strategy is what it was before.
ADDED_LATER: dict[str, Any] = {
    "after_dropout": False,
    "alpha_over_rank": False,
    "alpha_pattern": None,
    "dropout_place": "all",
    "initial_std": None,
    "rank_pattern": None,
    "rounding": "floor",
}


def content(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the part of a resolved configuration that decides the result.

    Settings of ``ADDED_LATER`` count only if they differ from the value there, so that signatures stay the same.
    """
    deciding: dict[str, Any] = {}
    ours = str(config.get("class_path")).startswith("smoa_lightning.adapters.")
    for key, value in config.items():
        path = f"{prefix}{key}"
        if path not in NOT_CONTENT and (value or path not in NOT_CONTENT_IF_EMPTY):
            if ours and key == "init_args" and isinstance(value, Mapping):
                value = {k: v for k, v in value.items() if k not in ADDED_LATER or v != ADDED_LATER[k]}
            value = EMPTY_COUNTS_AS.get(path) if value is None else value
            deciding[key] = content(value, f"{path}.") if isinstance(value, Mapping) else value
    return deciding


def signature(config: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return the content signature of a run: a hash of the settings that decide its result and of resolved facts.

    Args:
        config: The resolved configuration, JSON-safe.
        facts: Facts that the configuration does not contain: the sources chosen for ``auto``, revisions.
    """
    text = json.dumps([content(config), facts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as dotted keys.

    >>> flat({"data": {"task": "piqa"}, "seed_everything": 0})
    {'data.task': 'piqa', 'seed_everything': 0}
    """
    dotted: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            dotted |= flat(value, f"{prefix}{name}.")
        else:
            dotted[f"{prefix}{name}"] = value
    return dotted


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of a run folder, ``None`` if the folder has no record.

    Raises:
        UserError: The record is damaged.
    """
    remedy = "move the folder away or restore the file"
    record = read_sealed(folder / RECORD, remedy)
    if record is not None and (missing := {"name", "signature", "status"} - record.keys()):
        raise UserError(f"{folder / RECORD} is damaged (it has no {min(missing)!r}): {remedy}")
    return record


def check_record(file: Path, record: Mapping[str, Any]) -> None:
    """Check that a record has the sections that every run writes, and numbers as metrics.

    Args:
        file: The file of the record.
        record: What it holds.

    Raises:
        UserError: A section is missing or is not an object, or a metric is not a number.
    """
    settings: Any = record.get("config")
    sections = {name: record.get(name) for name in SECTIONS}
    sections |= {f"config.{name}": settings.get(name) for name in ("model", "data")} if is_object(settings) else {}
    fault = next((f"{name!r} is no object" for name, section in sections.items() if not is_object(section)), "")
    for name, value in {} if fault else record["metrics"].items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            fault = fault or f"the metric {name!r} is {shortened(repr(value), 40)} and not a number"
    if not fault and not isinstance(record["config"].get("seed_everything"), int | None):
        fault = "'config.seed_everything' is not a whole number"
    if not fault and not is_object(record.get(FILES, {})):
        fault = f"{FILES!r} is no object"
    if fault:
        raise UserError(f"{file} is damaged ({fault}): restore the file")


def is_object(value: Any) -> bool:
    """Return whether a value of JSON is an object."""
    return isinstance(value, Mapping)


def shortened(text: str, length: int) -> str:
    """Return a text that is cut after some letters."""
    return text if len(text) <= length else f"{text[:length]}…"


def evaluation_folder(base: Path, config: Mapping[str, Any], checkpoint: str | None) -> Path:
    """Return ``base``, or ``base-v2``, ``base-v3``, ... if a different evaluation is there.

    Args:
        base: The folder of the first evaluation.
        config: The resolved settings. The same evaluation again replaces its own files.
        checkpoint: The checkpoint that is evaluated.
    """
    wanted = json.loads(json.dumps([content(config), checkpoint], default=str))
    candidate, number = base, 1
    while (candidate / EVALUATION).is_file():
        try:
            found = read_sealed(candidate / EVALUATION) or {}
        except UserError:
            found = {}
        if [content(found.get("config", {})), found.get("checkpoint")] == wanted:
            break
        number += 1
        candidate = base.with_name(f"{base.name}-v{number}")
    return candidate


def check_files(folder: Path, record: Mapping[str, Any]) -> None:
    """Compare the files that a record lists with their checksums; earlier versions list none.

    Raises:
        UserError: A file is missing or damaged.
    """
    for name, expected in record.get(FILES, {}).items():
        file = folder / name
        if not file.is_file() or sha256(file) != expected:
            fault = "is damaged or was changed" if file.is_file() else "is missing"
            raise UserError(f"{file} {fault}: restore it, or move the folder away to start again")


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, and whether the run resumes an interrupted one there."""

    path: Path
    resume: bool


def run_folder(base: Path, run_signature: str, exact: bool, older: str = "") -> RunFolder:
    """Choose the folder of a run.

    By default it is ``base/version_N``. The newest unfinished version with the same signature is resumed, else N is
    the next number. A version that the same run has locked before its first record is that of this run too. With
    ``exact`` it is ``base`` itself. An unfinished run with the same signature is resumed there; after a finished run
    the folder is ``base-v2``, ``base-v3``, ...

    Args:
        base: A folder.
        run_signature: The signature of the run.
        exact: Whether ``base`` is the folder of the run itself.
        older: The signature that version 0.1 gives to the same run.

    Raises:
        UserError: The exact folder holds a different experiment, or files but no run.
    """
    if not exact:
        versions = sorted((p for p in base.glob("version_*") if p.name[8:].isdigit()), key=lambda p: int(p.name[8:]))
        for version in reversed(versions):
            if _unfinished(version, (run_signature, older)):
                return RunFolder(version, resume=True)
            if not (version / RECORD).exists() and _locked_by(version) == run_signature:
                return RunFolder(version, resume=False)
        number = int(versions[-1].name[8:]) + 1 if versions else 0
        return RunFolder(base / f"version_{number}", resume=False)
    candidate, number = base, 1
    while True:
        record = read_record(candidate)
        if record is None:
            if candidate.is_dir() and any(not entry.name.startswith(".") for entry in candidate.iterdir()):
                raise UserError(
                    f"the folder {candidate} is not empty and holds no run: choose a different --run.folder"
                )
            return RunFolder(candidate, resume=False)
        if record["signature"] not in (run_signature, older):
            raise DifferentRun(
                f"the folder {candidate} holds a different experiment ({record['name']}, signature "
                f"{record['signature']}; this run has {run_signature})",
                record.get("config", {}),
            )
        if record["status"] != "finished":
            return RunFolder(candidate, resume=True)
        number += 1
        candidate = base.with_name(f"{base.name}-v{number}")


def _unfinished(folder: Path, signatures: tuple[str, ...]) -> bool:
    try:
        record = read_record(folder)
    except UserError as error:  # another version may be the one to resume, and a new version is always possible
        logger.warning("%s", error)
        return False
    return record is not None and record["signature"] in signatures and record["status"] != "finished"


def _locked_by(folder: Path) -> str:
    """Return the signature of the last run that locked a folder; empty if none did."""
    try:
        return (folder / LOCK).read_text(encoding="utf-8")
    except OSError:
        return ""


def environment() -> dict[str, Any]:
    """Return versions of packages and interpreter, the platform, and the commit of the source tree, if it is one."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "git": _git_state(Path(__file__).parent),
    }


def _git_state(folder: Path) -> dict[str, Any] | None:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None  # an installed package, or no git: the version number identifies the code


class DifferentRun(UserError):
    """The folder of a run holds a run with different settings.

    Attributes:
        what: The sentence about it, without a remedy.
        config: The settings of the run there.
    """

    def __init__(self, what: str, config: Mapping[str, Any]) -> None:
        super().__init__(f"{what}: choose a different --run.folder")
        self.what, self.config = what, config


def differing(here: Mapping[str, Any], there: Mapping[str, Any], most: int = 3) -> str:
    """Return the settings in which two runs differ as a text, empty if there are none.

    >>> differing({"model": {"warmup": 0.1, "decay": "linear"}}, {"model": {"warmup": 0, "decay": "linear"}})
    'model.warmup is 0.1 here and 0 there'
    """
    ours, theirs = flat(content(here)), flat(content(there))
    keys = [key for key in dict.fromkeys([*ours, *theirs]) if ours.get(key) != theirs.get(key)]
    shown = [f"{key.replace('.init_args.', '.')} is {ours.get(key)} here and {theirs.get(key)} there" for key in keys]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


class RunInProgress(UserError):
    """Another process is running in the folder of a run."""

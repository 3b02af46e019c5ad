"""Whether a resumed or tested run reads what it read at its start: rows, and files of the backbone and the teacher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from smoa_lightning.backbones.hub import hub_answers
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.paths import local_path
from smoa_lightning.records.record import read_record, signature
from smoa_lightning.training.callbacks.forgetting import EMBEDDED
from smoa_lightning.training.checkpoint import file_digest
from smoa_lightning.training.run_checkpoints import resume_point, run_of
from smoa_lightning.training.teacher import Teacher, open_teacher
from smoa_lightning.training.trained_on import changes

if TYPE_CHECKING:
    from smoa_lightning.backbones.backbone import Location
    from smoa_lightning.data.datamodule import TaskDataModule
    from smoa_lightning.training.module import FineTuneModule

ROWS = "rows"  # key of the digests of a run's rows and texts in its record
TEXT = "forgetting.text"  # the setting that names a text


@dataclass(frozen=True)
class Identity:
    """What decides whether two runs are the same.

    Args:
        signature: The signature of the settings and the sources.
        branches: The same with the names of branches and tags of the hub in the place of their commits.
        sources: From :func:`sources`.
    """

    signature: str
    branches: str
    sources: Mapping[str, Any]


def identity(config: Mapping[str, Any], backbone: Location, data: TaskDataModule) -> Identity:
    """Return the identity of a run from its resolved settings and its sources."""
    start = {"start": file_digest(config.get("ckpt_path"))}
    resolved, named = sources(backbone, data), sources(backbone, data, commits=False)
    return Identity(signature(config, resolved | start), signature(config, named | start), resolved)


def sources(backbone: Location, data: TaskDataModule, commits: bool = True) -> dict[str, Any]:
    """Return the facts about the sources of a run for its signature.

    Args:
        backbone: The location of the backbone.
        data: The data, with their sources resolved.
        commits: Whether a branch or tag on the hub counts with its commit. Signatures of version 0.1 lack the commits.
    """
    commit = backbone.commit if commits else None
    facts: dict[str, Any] = {"backbone": [backbone.source, commit or backbone.revision], "data": data.source}
    moving = {name: rows.commit for name, rows in data.sets.all.items() if rows.commit != rows.revision}
    if commits and data.source == "hub" and moving:
        facts["commits"] = moving
    return facts


def check_commits(folders: Iterable[Path], now: Identity) -> None:
    """Compare the hub commits of unfinished runs with those of a new run with the same settings and branches.

    Args:
        folders: The folders of earlier runs.
        now: The new run.

    Raises:
        UserError: A branch or tag moved; the message names it and both commits.
    """
    for folder in folders:
        try:
            record = read_record(folder) or {}
        except UserError:
            continue  # the choice of the folder reports it
        other = record.get("branches") != now.branches or record["status"] == "finished"
        if other or record["signature"] == now.signature:
            continue
        both = record["sources"], now.sources
        old, new = ({"backbone": facts["backbone"][1], **facts.get("commits", {})} for facts in both)
        changed = [f"{name}: {old[name]} became {new.get(name)}" for name in old if old[name] != new.get(name)]
        fault, wait = "the hub changed after", ""
        if not hub_answers():  # then the commits are those of its cache
            fault = "the hub does not answer, and its cache holds a different commit than when"
            wait = "repeat the command when the hub answers, or "
        raise UserError(
            f"{fault} the unfinished run in {folder} began ({', '.join(changed)}): {wait}"
            "move the folder away to start again; model.backbone.revision and data.revision can name the old commit"
        )


def row_digests(data: TaskDataModule, train: bool, report: bool = True) -> dict[str, str]:
    """Return ``<task>/<split>`` -> SHA-256 of its checked rows, for the rows that a run will read.

    Reported tasks read training rows too, if solved ones come before their prompts. Rows from the hub are left out,
    since the signature of the run contains their commit.

    Args:
        data: The data, with their sources resolved.
        train: Whether the run reads training rows.
        report: Whether the run scores report rows.
    """
    digests: dict[str, str] = {}
    if data.source == "hub":
        return digests
    for name, rows in data.sets.all.items():
        reported = report and name in data.sets.reported and rows.has_report
        solved = reported and data.num_fewshot > 0
        splits = [rows.task.train_split] if solved or (train and name in data.sets.trained) else []
        if reported:
            splits.append(rows.report_split)
        digests |= {f"{name}/{split}": rows.rows(split).sha256 for split in splits}
    return digests


def rows_to_continue(
    folder: Path, earlier: Mapping[str, Any], backbone: Mapping[str, Any], teacher: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Check the backbone and the teacher of an interrupted run, and return the digests of its rows.

    A run that has neither scored nor trained continues nothing, so its backbone, its teacher and its rows may change:
    if they were refused, this is the remedy.

    Args:
        folder: The folder of the run.
        earlier: Its record; empty for a new run.
        backbone: The facts about the backbone now.
        teacher: The facts about the teacher now; ``None`` without one.

    Raises:
        UserError: Weights, config or tokenizer changed.
    """
    if not earlier.get("metrics") and resume_point(folder) is None:
        return {}
    check_backbone(folder, earlier["backbone"], backbone)
    check_teacher(folder, earlier.get("teacher"), teacher)
    rows: dict[str, str] = earlier.get("data", {}).get(ROWS, {})
    return rows


def check_teacher(folder: Path, earlier: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> None:
    """Compare the files of a teacher with those at the start of a run that is continued or tested.

    Raises:
        UserError: A file changed; the message names it.
    """
    if not earlier or not now:
        return
    changed = changes(earlier.get("backbone", {}), now.get("backbone", {}))
    old, new = earlier.get("adapter", {}), now.get("adapter", {})
    changed += [f"{name} changed" for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if changed:
        raise UserError(
            f"the run in {folder} began with different files of its teacher {now['name']!r} ({', '.join(changed)}): "
            "restore them, or start a new run"
        )


def check_scoring_teacher(module: FineTuneModule, max_length: int, checkpoint: str) -> None:
    """Refuse another teacher than that of the run, if the rows are scored against it.

    Raises:
        UserError: A file of the teacher changed; the message names it.
    """
    folder = run_of(Path(checkpoint))
    if folder is None or module.distillation is None or not module.distillation.score:
        return
    teacher = cast(Teacher, open_teacher(module, max_length))
    check_teacher(folder, (read_record(folder) or {}).get("teacher"), teacher.facts())


def text_digests(config: Mapping[str, Any]) -> dict[str, str]:
    """Return ``forgetting.text`` -> SHA-256 of the file that it names; empty for the embedded text and for none."""
    text = (config.get("forgetting") or {}).get("text")
    digest = None if text in (None, EMBEDDED) else file_digest(str(local_path(text)))
    return {} if digest is None else {TEXT: digest}


def read_digests(
    data: TaskDataModule, config: Mapping[str, Any], train: bool, report: bool, earlier: Mapping[str, str]
) -> dict[str, str]:
    """Return the digests of all rows and texts that a run will read.

    Args:
        data: The data, with their sources resolved.
        config: The settings of the run.
        train: Whether the run reads training rows.
        report: Whether the run scores report rows. If not, they are not read, and keep their digests in ``earlier``.
        earlier: The digests at the start of the run.
    """
    unread = set() if report else {f"{name}/{rows.report_split}" for name, rows in data.sets.reported.items()}
    kept = {name: digest for name, digest in earlier.items() if name in unread}
    return kept | row_digests(data, train, report) | text_digests(config)


def check_rows(folder: Path, earlier: Mapping[str, str], now: Mapping[str, str], origin: Any) -> None:
    """Compare the rows and texts of a resumed run with those at its start; a record of an earlier version lists none.

    Raises:
        UserError: Something changed; the message names the task and the split, or the setting.
    """
    changed = [name for name in earlier if earlier[name] != now.get(name)]
    if changed:
        place, rows = f" in {origin}" if origin else "", [name for name in changed if name != TEXT]
        parts = [f"the {' and '.join(rows)} rows{place}"] if rows else []
        parts += [f"the file of {TEXT}"] if TEXT in changed else []
        raise UserError(
            f"{' and '.join(parts)} changed after the run in {folder} began: restore them, or move "
            "the folder away to start again"
        )


def check_backbone(folder: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare the files of a local backbone with those at the start of a run.

    Files that a record of an earlier version does not list are not compared.

    Raises:
        UserError: Weights, config or tokenizer changed; the message names the file.
    """
    changed = changes(earlier, now)
    if changed:
        raise UserError(
            f"the run in {folder} began with different weights or settings of {now['name']!r} ({', '.join(changed)}): "
            "restore them, or move the folder away to start again"
        )

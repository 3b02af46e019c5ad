"""Whether a backbone is the one that a run, a checkpoint or an adapter was trained on: its content, not its place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoa_lightning.backbones.heads import Head, head_of
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.other_backbone import FLAG, other_backbone_is_allowed
from smoa_lightning.records.record import read_record
from smoa_lightning.training.checkpoint import read_checkpoint
from smoa_lightning.training.run_checkpoints import run_of

if TYPE_CHECKING:
    from smoa_lightning.training.module import FineTuneModule

logger = logging.getLogger(__name__)


def changes(earlier: Mapping[str, Any], now: Mapping[str, Any], weights: bool = True) -> list[str]:
    """Return what differs between two backbones, from ``backbones.backbone.provenance``; empty if nothing does.

    Files that ``earlier`` does not list are not compared: earlier versions listed less.

    Args:
        earlier: The backbone in training.
        now: The backbone of this command.
        weights: Whether its weights matter.
    """
    if earlier.get("commit") and now.get("commit"):
        same = earlier["commit"] == now["commit"] or not weights
        return [] if same else [f"commit {earlier['commit']} became {now['commit']}"]
    sources = earlier.get("source"), now.get("source")
    if "hub" in sources and "embedded" in sources:
        return [f"source {sources[0]} became {sources[1]}"]
    kinds = ("sha256", "files") if weights else ("files",)
    old, new = ({name: value for kind in kinds for name, value in (facts.get(kind) or {}).items()}
                for facts in (earlier, now))  # fmt: skip
    if not old or not new:
        return []
    changed = [name for name in old if new.get(name) != old[name]]
    if weights and earlier.get("sha256"):  # transformers reads new weights of this kind in the place of others
        changed += [name for name in new.keys() - old.keys() if name.endswith(".safetensors")]
    return [f"{name} changed" for name in changed]


def check_trained_on(what: str, earlier: Mapping[str, Any], now: Mapping[str, Any], weights: bool = True) -> None:
    """Refuse a backbone that differs from the one that a checkpoint or an adapter was trained on.

    Args:
        what: The checkpoint or the adapter, for the message.
        earlier: Its backbone; empty if an earlier version wrote it.
        now: The backbone of this command.
        weights: Whether the weights of the backbone matter. After full fine-tuning they do not.

    Raises:
        UserError: The message names what changed, and the flag that allows it.
    """
    changed = changes(earlier, now, weights)
    if changed and not other_backbone_is_allowed():
        raise UserError(
            f"{what} was trained on a different backbone than {now['name']!r} ({', '.join(changed)}): restore it, "
            f"name the right one with --model.backbone.path or --model.backbone.revision, or add --{FLAG}"
        )
    if changed:
        logger.warning("%s was trained on a different backbone: %s", what, ", ".join(changed))
    elif "hub" in (sources := {earlier.get("source"), now.get("source")}) and "local" in sources:
        logger.warning("%s and %r cannot be compared: one of their backbones is from the hub", what, now["name"])


def read_fitting(checkpoint: str, module: FineTuneModule) -> dict[str, Any]:
    """Read a checkpoint that was trained on the backbone of a module.

    Checkpoints of earlier versions do not name their backbone, but the record of their run does.

    Raises:
        UserError: The checkpoint cannot be read, or the backbone differs.
    """
    saved, run = read_checkpoint(Path(checkpoint)), run_of(Path(checkpoint))
    record = None if run is None else read_record(run)
    earlier = saved.get("backbone") or (record or {}).get("backbone") or {}
    full = module.adapter_config is None  # then the checkpoint has all weights
    check_trained_on(f"the checkpoint {checkpoint!r}", earlier, module.backbone_facts, weights=not full)
    if earlier:
        check_same_outputs(checkpoint, head_of(earlier.get("head")), module.objective.head)
    return saved


def check_same_outputs(checkpoint: str, earlier: Head, now: Head) -> None:
    """Refuse rows that need another head than that of a checkpoint: its outputs would get the names of other classes.

    Args:
        checkpoint: The checkpoint, for the message.
        earlier: Its head.
        now: The head that the rows need.

    Raises:
        UserError: The message has the outputs of both.
    """
    if not earlier.same_outputs(now) and {earlier.kind, now.kind} != {"regression"}:
        raise UserError(
            f"the checkpoint {checkpoint!r} has the head {earlier.words()}, but the rows need {now.words()}: use rows "
            "with the same classes in the same order (data.class_names for your own images)"
        )

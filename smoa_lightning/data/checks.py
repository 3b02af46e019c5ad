"""Checks of the ranges of data settings, before anything is loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from smoa_lightning.backbones.hub import SOURCES
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.combinations import check_combinations
from smoa_lightning.configuration.ranges import check_value
from smoa_lightning.data.tasks.base import Generation, Labelling, Protocol, reads_images

logger = logging.getLogger(__name__)

NUMBERS = (
    *("batch_size", "eval_batch_size", "eval_max_tokens", "limit_train_rows", "limit_report_rows", "bucket_batches"),
    *("pad_multiple", "max_new_tokens", "num_beams", "selection_rows", "num_workers", "num_fewshot", "max_length"),
    *("seed", "first_label", "train_per_class"),
)
OTHERS = (
    "augmentation",
    "selection",
    "rules",
    "protocol",
    "chat_template",
)  # that may contradict numbers or each other


# Settings of prompts and replies, with the values that change nothing.
OF_PROMPTS: dict[str, tuple[Any, ...]] = {
    "packing": (False,), "num_fewshot": (0,), "bert_score": (None,), "max_new_tokens": (None,), "num_beams": (None, 1),
    "loss_on": ("response",),
}  # fmt: skip
OF_REPLIES = ("max_new_tokens", "num_beams", "bert_score")  # those of them that the generation protocol alone reads


def check_labelling(protocols: Mapping[str, Protocol], trained: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Refuse settings of prompts and replies for tasks with a label, and such tasks together with others.

    Args:
        protocols: Task -> its protocol, for all tasks of a run.
        trained: The tasks that are trained on.
        settings: The settings of the data module by their names.

    Raises:
        UserError: names the setting.
    """
    if settings["augmentation"] and not reads_images(protocols[trained[0]]):
        raise UserError(
            f"data.augmentation changes images, but the rows of the task {trained[0]!r} are texts: remove it"
        )
    labelled = [name for name, protocol in protocols.items() if isinstance(protocol, Labelling)]
    if not labelled:
        return
    first = protocols[labelled[0]]
    for name, protocol in protocols.items():
        if protocol.name != first.name or getattr(protocol, "names", ()) != getattr(first, "names", ()):
            raise UserError(
                f"data: the tasks {labelled[0]!r} ({first.name}) and {name!r} ({protocol.name}) need different heads "
                "of the model; train and report tasks with the same labels"
            )
    if len(trained) > 1:
        raise UserError("data.mixture: a model with a new head is trained on one task; name it in data.task")
    for key, unused in OF_PROMPTS.items():
        if settings[key] not in unused:
            raise UserError(
                f"data.{key} is {settings[key]}, but task {labelled[0]!r} has no prompt and no reply, but a label: "
                "remove it"
            )


def warn_of_replies(protocols: Mapping[str, Protocol], settings: Mapping[str, Any]) -> None:
    """Warn of settings of written replies where no task has any.

    They are no error: a checkpoint may be evaluated under another protocol, and a study may have cells with replies.

    Args:
        protocols: Task -> its protocol, for all tasks of a run.
        settings: The settings of the data module by their names.
    """
    if any(isinstance(protocol, Generation | Labelling) for protocol in protocols.values()):
        return  # tasks with a label refuse them
    used = " and ".join(sorted({protocol.name for protocol in protocols.values()}))
    for key in OF_REPLIES:
        if settings[key] not in OF_PROMPTS[key]:
            logger.warning(
                "data.%s is %s, but the protocol is %s, and only the protocol generation writes replies: it has no "
                "effect",
                key,
                settings[key],
                used,
            )


def check_ranges(source: str, numbers: Mapping[str, Any]) -> None:
    """Refuse an unknown source and numbers out of their range.

    Args:
        source: ``data.source``.
        numbers: Settings by their names, with those of ``NUMBERS`` and ``OTHERS`` among them.

    Raises:
        UserError: names the setting, its value and the bound.
    """
    if source not in SOURCES:
        raise UserError(f"data.source: unknown source {source!r}; the sources are {', '.join(SOURCES)}")
    for name in NUMBERS:
        check_value(f"data.{name}", numbers[name])
    check_combinations({f"data.{name}": numbers[name] for name in (*NUMBERS, *OTHERS)}.get)

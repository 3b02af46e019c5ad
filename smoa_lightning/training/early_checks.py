"""Checks of a training run before anything is scored: its length, its optimizer, and the names of its modules."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from typing import Any, cast

import lightning as L
from peft import PeftConfig
from transformers import PreTrainedModel

from smoa_lightning.adapters.attach import check_reads_tokens
from smoa_lightning.adapters.budget import countable
from smoa_lightning.adapters.combine import attach_strategy
from smoa_lightning.adapters.idle_layers import check_not_idle, idle_layers
from smoa_lightning.adapters.own_methods import try_own_layers
from smoa_lightning.adapters.targets import check_saved_modules, resolve_targets
from smoa_lightning.backbones.backbone import load_skeleton
from smoa_lightning.backbones.processor import pixels_of
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.records.record import flat
from smoa_lightning.training.module import FineTuneModule
from smoa_lightning.training.optimizer import check_head_rate, check_words, try_optimizer
from smoa_lightning.training.packing_check import check_no_virtual_tokens
from smoa_lightning.training.teacher import SETTING, open_teacher
from smoa_lightning.training.teacher_cache import open_cache
from smoa_lightning.training.trainer_checks import check_observers, check_share

logger = logging.getLogger(__name__)


def check_before_work(
    trainer: L.Trainer,
    module: FineTuneModule,
    data: TaskDataModule,
    config: Mapping[str, Any],
    logs: bool | None = None,
) -> None:
    """Set the data up, and refuse settings that would fail, or mean nothing, after the base model was scored.

    Report rows that are training rows too are logged. If nothing scores report rows, they are not read.

    Args:
        trainer: The trainer of the run.
        module: The model, which is not loaded yet.
        data: The data.
        config: The settings of the run.
        logs: Whether the run has a logger, which the trainer may get later; ``None`` asks the trainer.

    Raises:
        UserError: The message names the setting and its valid range.
    """
    module.teacher = open_teacher(module, data.encoding.max_length)
    if data.packing:
        for config_of in (module.adapter_config, module.prompt_config):
            check_no_virtual_tokens(config_of)
        if module.teacher is not None and module.teacher.settings.cache_folder is None:
            check_no_virtual_tokens(module.teacher.adapter_config, f"{SETTING}: ")
    if module.frozen:
        _check_scoring(trainer, data)
        return
    check_head_rate(module.head_lr, module.objective.head.is_new)
    data.setup("fit")
    module.teacher_cache = open_cache(module, data, str(trainer.precision))
    scores_base, scores_report = (flat(config).get(f"run.{name}", True) for name in ("score_base", "score_report"))
    if scored := data.has_report and (scores_base or scores_report):
        data.sets.report_overlaps()
    if data.has_report and scores_report:
        data.setup("test")  # an error in a report row comes before scores and training
        module.scores_report = trainer.limit_test_batches != 0
    if str(flat(config).get("model.optimizer.class_path")).startswith("torch."):
        try_optimizer(module.optimizer_factory, trainer.strategy.root_device, module.no_weight_decay)
    if module.adapter_config is not None:
        module.resolve_budget()
        _check_adapter(load_skeleton(module.backbone_config, module.location), module)
    elif module.no_weight_decay:
        check_words(load_skeleton(module.backbone_config, module.location), module.no_weight_decay)
    data.trainer = trainer
    selects = data.selection_rows != 0
    validates = check_length(trainer, module.warmup, len(data.train_dataloader()), selects)
    if validates:
        check_share(trainer, "val", data.val_dataloader())
    if scored and trainer.limit_test_batches not in (None, 1.0):
        data.setup("test")
        check_share(trainer, "test", data.test_dataloader())
    check_observers(trainer, validates, list(data.sets.scored("selection")), logs)


def _check_scoring(trainer: L.Trainer, data: TaskDataModule) -> None:
    """Read and encode the report rows of a run that only scores them."""
    if data.has_report:
        data.setup("test")
        data.trainer = trainer
        check_share(trainer, "test", data.test_dataloader())


def _check_adapter(skeleton: PreTrainedModel, module: FineTuneModule) -> None:
    """Attach the adapter to a model without weights, so that a size that fits no layer is refused before scores.

    Other exceptions are those of code that needs the weights, such as an initialisation from data: they mean nothing.
    """
    config = cast(PeftConfig, module.adapter_config)
    if config.is_prompt_learning:
        check_reads_tokens(skeleton, config)
        check_saved_modules(skeleton, resolve_targets(skeleton, config))
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the real adapter warns again
            idle = idle_layers(skeleton, pixels_of(module.processor)) if module.location.head.reads_images else ()
            prompt = None if module.prompt_config is None else countable(module.prompt_config)
            network = attach_strategy(skeleton, config, prompt, seed=0)
            check_words(network, module.no_weight_decay or ())
            check_not_idle(network, idle)
            try_own_layers(network)
    except UserError:
        raise
    except Exception as error:
        logger.debug("the adapter was not tried before scores: %s: %s", type(error).__name__, error)


def check_length(trainer: L.Trainer, warmup: float, batches: int, selects: bool) -> bool:
    """Refuse a warm-up that is longer than the run, and a first validation after its end.

    Args:
        trainer: The trainer of the run.
        warmup: ``model.warmup``.
        batches: Batches of one epoch in one process.
        selects: Whether there are rows that select the adapter.

    Returns:
        Whether these rows are scored before training ends.

    Raises:
        UserError: The message names the valid range.
    """
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * (1.0 if limit is None else limit))
    if batches < 1:
        raise UserError(f"trainer.limit_train_batches is {limit}, which leaves no training batch: set it to at least 1")
    accumulate = trainer.accumulate_grad_batches
    epochs = math.inf if trainer.max_epochs in (-1, None) else float(trainer.max_epochs or 0)
    steps = min(math.inf if trainer.max_steps == -1 else trainer.max_steps, epochs * math.ceil(batches / accumulate))
    if warmup >= 1 and warmup > steps:
        raise UserError(
            f"model.warmup is {warmup:g} steps, but the run has {steps:g} steps: set it to at most {steps:g}, or to a "
            "share of all steps below 1"
        )
    if not selects or trainer.limit_val_batches == 0:
        return False
    if getattr(trainer, "_val_check_time_interval", None) is not None:
        return True
    return _check_validation(trainer, batches, min(steps * accumulate, epochs * batches))


def _check_validation(trainer: L.Trainer, batches: int, total: float) -> bool:
    """Refuse an interval that is never reached; return whether the first validation is within the run.

    Args:
        trainer: The trainer of the run.
        batches: Batches of one epoch.
        total: Batches of the whole run.
    """
    interval: Any = trainer.val_check_interval
    every = trainer.check_val_every_n_epoch
    most = total if every is None else batches
    if isinstance(interval, int) and not isinstance(interval, bool) and interval > most:
        raise UserError(
            f"trainer.val_check_interval is {interval}, but {'the run' if every is None else 'an epoch'} has {most:g} "
            f"batches, so no adapter would be selected: set it to at most {most:g}"
        )
    first = interval if isinstance(interval, int) else max(1, int(batches * (interval or 1.0)))
    first += ((every or 1) - 1) * batches
    if total < first:
        logger.info(
            "training ends after %s, before the first validation at %d: the last adapter is the best one",
            "1 batch" if total == 1 else f"{total:g} batches",
            first,
        )
    return total >= first

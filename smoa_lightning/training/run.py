"""A run from start to end: its folder, record, base score, training and final score."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml

from smoa_lightning.adapters.inspect import sizes
from smoa_lightning.backbones.backbone import check_loadable, provenance
from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.common.checksums import checksums_in, write_sealed
from smoa_lightning.common.console import is_first_process
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.class_names import other_classes
from smoa_lightning.configuration.path_settings import absolute_sources
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.evaluation.text import signatures
from smoa_lightning.records.claim import Claim
from smoa_lightning.records.record import (
    BASE_ITEMS,
    BASE_SCORES,
    FILES,
    RECORD,
    SCORES,
    RunFolder,
    check_files,
    content,
    environment,
    evaluation_folder,
    read_record,
)
from smoa_lightning.records.selection import ON_TRAINED, capacity
from smoa_lightning.records.tables import part_table
from smoa_lightning.training.callbacks import AdapterCheckpoint, CostMonitor, Pictures, RankMonitor, SamplePredictions
from smoa_lightning.training.callbacks.kept_states import kept_states
from smoa_lightning.training.checkpoint import log_differences, read_checkpoint, verify, verify_all
from smoa_lightning.training.early_checks import check_before_work
from smoa_lightning.training.loggers import results
from smoa_lightning.training.lookups import callback_of, floats, now
from smoa_lightning.training.module import FineTuneModule
from smoa_lightning.training.processes import ending_together, stop_if_terminated
from smoa_lightning.training.run_checkpoints import BEST, publish, resume_point, run_of
from smoa_lightning.training.run_names import earlier_names, flat_hyperparameters
from smoa_lightning.training.run_notes import end_reason, fit_result
from smoa_lightning.training.run_place import base_of, claim_recovered, shared_folder
from smoa_lightning.training.trained_on import read_fitting
from smoa_lightning.training.unchanged import ROWS, check_commits, check_rows, identity, read_digests, rows_to_continue

Metrics = dict[str, float]
logger = logging.getLogger(__name__)


class Run:
    """A run of a configuration.

    Args:
        module: The model.
        data: The data.
        config: The resolved configuration of the subcommand, JSON-safe.
        name: Readable name.
        score_base: Score the base model first.
        score_report: Score the best adapter at the end.
        notes: Further parts of the record, such as the place of the run in a study.
    """

    def __init__(
        self,
        module: FineTuneModule,
        data: TaskDataModule,
        config: dict[str, Any],
        name: str,
        score_base: bool = True,
        score_report: bool = True,
        notes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.notes = dict(notes or {})
        self.module, self.data, self.config, self.name = module, data, config, name
        self.score_base, self.score_report = score_base, score_report
        self.other_classes = other_classes(config)  # neither of this package nor of the libraries that it trusts
        self.identity = identity(config, module.location, data)
        self.target = RunFolder(Path(), resume=False)
        self._claim: Claim | None = None  # in the first process of a training run
        self.record: dict[str, Any] = {}
        self._loggers: dict[str, Any] = {}  # the entries of the interrupted run in W&B, MLflow and others
        self.result = ""  # the text that the command prints at the end; empty except in the first process
        module.run_config = content(absolute_sources(config))
        data.processor = module.processor
        data.sets.fit_context(module.limits)

    @property
    def folder(self) -> Path:
        """The folder of this run."""
        return self.target.path

    def choose_folder(self, root: str, exact: str | None, trainer: L.Trainer, logs: bool = True) -> None:
        """Claim the folder of an unfinished run with the same signature, else a new folder; repair it after a kill.

        Everything that needs no forward pass is checked before, so that a refused run takes no folder.

        Raises:
            UserError: A setting, the rows or the folder is refused, another process does this run, or the run has no
                intact checkpoint.
        """
        check_loadable(self.module.backbone_config, self.module.location)
        names = [self.name, *earlier_names(self.module, self.data, self.config)]
        base = Path(exact) if exact else base_of(Path(root), names, self.identity)
        check_commits([base] if exact else base.glob("version_*"), self.identity)
        check_before_work(trainer, self.module, self.data, self.config, logs)
        wanted = (self.identity.signature, exact is not None, self.identity.branches, self.config)
        self.target, self._claim = shared_folder(trainer, lambda: claim_recovered(base, *wanted))

    def release(self) -> None:
        """Unlock the folder of the run."""
        if self._claim is not None:
            self._claim.release()

    def choose_output(self, root: str, exact: str | None, subcommand: str, checkpoint: str | None) -> None:
        """Choose the folder of an evaluation: inside the checkpoint's run, else a folder with the run's name."""
        base = (None if checkpoint is None else run_of(Path(checkpoint))) or Path(root) / self.name
        folder = evaluation_folder(Path(exact) if exact else base / subcommand, self.config, checkpoint)
        self.target = RunFolder(folder, resume=False)
        if (self.folder / RECORD).is_file():
            raise UserError(f"the folder {self.folder} holds a training run; set --run.folder to a different folder")

    def resumed_step(self) -> int | None:
        """Return the step from which TensorBoard must drop points of the interrupted run; ``None`` for a new run."""
        if not self.target.resume:
            return None
        point = resume_point(self.folder)
        return 0 if point is None else int(read_checkpoint(point)["global_step"])

    # ----------------------------------------------------------------------------------------------------- fit

    def fit(self, trainer: L.Trainer, checkpoint: str | None) -> None:
        """Do the whole run, and complete its record.

        Args:
            trainer: A trainer that writes to this folder.
            checkpoint: Checkpoint whose weights a new run starts from.
        """
        if checkpoint is not None:
            read_fitting(checkpoint, self.module)  # an error here comes before scores and files
        self._began = time.monotonic()
        with self._recorded(trainer), ending_together(trainer):
            self._check_rows()
            results.begin(trainer, self.record, self._loggers, self.resumed_step())
            metrics = self._base_metrics(trainer)
            if not self.module.frozen:
                start = self._start_from(trainer, checkpoint)
                logger.info("%s", part_table(self.data.summary()))
                trainer.fit(self.module, datamodule=self.data, ckpt_path=start, weights_only=True)
                if not (self.folder / "adapter" / "last").is_dir():  # stopped between the last step and the files
                    callback_of(trainer, AdapterCheckpoint).on_train_end(trainer, self.module)
                metrics |= self._report(trainer)
                if is_first_process():
                    publish(self.folder)
            self._complete(trainer, metrics)

    def _start_from(self, trainer: L.Trainer, checkpoint: str | None) -> str | None:
        """Return the run's last checkpoint if there is one; else load the weights of the given checkpoint.

        Learning rate, schedule, steps and data order are those of this configuration.
        """
        point = resume_point(self.folder) if self.target.resume else None
        if point is not None:
            verify_all(point)
            return str(point)
        if checkpoint is not None:
            saved = read_fitting(checkpoint, self.module)
            log_differences(self.config, saved["config"])
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, RankMonitor):
                    callback.setup(trainer, self.module, "fit")  # it copies the weights of the backbone
            self.module.configure_model()
            self.module.load_state_dict(saved["state_dict"])
            logger.info("starting from the weights of %s", checkpoint)
        return None

    @contextlib.contextmanager
    def _recorded(self, trainer: L.Trainer) -> Iterator[None]:
        """Write the record of the running run; if it ends early, add the reason."""
        earlier = read_record(self.folder) or {}
        check_files(self.folder, earlier)
        backbone = self.module.backbone_facts
        teacher = None if self.module.teacher is None else self.module.teacher.facts()
        rows = rows_to_continue(self.folder, earlier, backbone, teacher)
        self._loggers = earlier.get("loggers", {})
        self.record = {
            "name": self.name,
            **asdict(self.identity),
            "status": "running",
            "started": earlier.get("started") or now(),
            "config": self.config,
            "hyperparameters": flat_hyperparameters(self.module, self.data, self.config),
            "backbone": backbone,
            "data": {"task": self.data.name, "source": self.data.source, "selection": self.data.selection, ROWS: rows},
            "metrics": earlier.get("metrics", {}),
            FILES: earlier.get(FILES, {}),
            "environment": environment(),
            "other_classes": self.other_classes,
            **({} if teacher is None else {"teacher": teacher}),
            **self.notes,
        }
        logger.debug("versions: %s", ", ".join(map(" ".join, self.record["environment"]["packages"].items())))
        if self.module.budget is not None and self.module.budget_fit is not None:
            self.record["budget"] = self.module.budget_fit.facts(self.module.budget)
        self._write()
        if is_first_process():
            with replacing(self.folder / "config.yaml") as temporary:
                temporary.write_text(yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        try:
            yield
        except BaseException as error:
            if self.record["status"] == "finished":  # what comes after the record cannot undo it
                raise
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)  # Lightning turns Ctrl-C into SystemExit
            self.record |= {"status": "stopped" if stopped else "failed", "reason": end_reason(error)}
            self._write()
            began = bool(self.record["metrics"]) or self.module.seen_tokens > 0
            if isinstance(error, UserError) and not began and self._claim is not None:
                self._claim.forget()
            if stopped:
                raise KeyboardInterrupt from error
            if trainer.global_step:  # loggers show pruned trials and failed runs too
                results.log_final(trainer, self.record, self.record["metrics"])
            raise
        finally:
            results.end(trainer, self.record)

    def _check_rows(self) -> None:
        """Read all rows, and compare them and other texts with those at the start of an interrupted run."""
        frozen, earlier = self.module.frozen, self.record["data"][ROWS]
        rows = read_digests(self.data, self.config, not frozen, frozen or self.score_base or self.score_report, earlier)
        check_rows(self.folder, earlier, rows, self.config["data"].get("path"))
        self.record["data"][ROWS] = rows
        self._write()

    def _write(self) -> None:
        if is_first_process():
            write_sealed(self.folder / RECORD, self.record)

    def _base_metrics(self, trainer: L.Trainer) -> Metrics:
        """Return the scores of the base model: from the record of the interrupted run, else measured now."""
        recorded = {k: v for k, v in self.record["metrics"].items() if k.startswith("base/")}
        results.compare_report(trainer, not self.module.frozen and (bool(recorded) or self.score_base))
        if recorded and resume_point(self.folder) is None:  # TensorBoard drops all points of a run without a checkpoint
            self._log_base_points(trainer, recorded, again=True)
            callback_of(trainer, SamplePredictions).write_base_again(trainer, self.data, self.folder / BASE_ITEMS)
        if recorded or not (self.score_base or self.module.frozen) or not self.data.has_report:
            return recorded
        logger.info("scoring the base model on the report rows")
        began = time.monotonic()
        with self.module.as_base_model():
            trainer.test(self.module, datamodule=self.data, weights_only=True, verbose=False)
        stop_if_terminated(trainer)
        logger.debug("scored the base model in %.1f s", time.monotonic() - began)
        metrics = floats(trainer.callback_metrics, "base/")
        self._log_base_points(trainer, metrics, again=False)
        self.record["metrics"] = metrics
        self.record[FILES] = checksums_in(self.folder, *(SCORES if self.module.frozen else BASE_SCORES))
        self._write()
        return metrics

    def _log_base_points(self, trainer: L.Trainer, metrics: Metrics, again: bool) -> None:
        """Log the scores of the base model as the first points of ``report/``; with ``again`` as ``base/`` too."""
        if trainer.logger is None or not is_first_process():
            return
        as_report = {k.replace("base/", "report/"): v for k, v in metrics.items()}
        trainer.logger.log_metrics(as_report | ({**metrics, "epoch": 0} if again else {}), step=0)

    def _report(self, trainer: L.Trainer) -> Metrics:
        """Return the selection metrics of the best adapter, and its scores on the report rows."""
        checkpoint = callback_of(trainer, AdapterCheckpoint)
        metrics = dict(checkpoint.best_metrics)
        self.record["best"] = checkpoint.facts(trainer.global_step)
        if not (self.score_report and self.data.has_report):
            return metrics
        best = self.folder / "checkpoints" / BEST
        verify(best)
        with kept_states(trainer):
            trainer.test(self.module, datamodule=self.data, ckpt_path=str(best), weights_only=True, verbose=False)
        return metrics | floats(trainer.callback_metrics, "report/")

    def _complete(self, trainer: L.Trainer, metrics: Metrics) -> None:
        if self.module.frozen:
            metrics |= {k.replace("base/", "report/"): v for k, v in metrics.items()}
        metrics |= {f"parameters/{k}": v for k, v in sizes(self.module.network).items()}
        if self.data.selection == ON_TRAINED:
            metrics |= capacity(metrics, len(self.data.indices("train")))
        metrics |= {f"cost/{k}": v for k, v in callback_of(trainer, CostMonitor).summary().items()}
        self.record |= {
            "status": "finished",
            "finished": now(),
            "seconds": time.monotonic() - self._began,  # of scoring and training; of a resumed run since then
            "device": str(trainer.strategy.root_device),
            "threads": torch.get_num_threads(),
            "backbone": provenance(self.module.location, self.module.network),
            "data": self.data.provenance
            | {"selection": self.data.selection, "max_length": self.data.encoding.max_length}
            | {"parts": self.data.summary()},
            "metrics": metrics,
        }
        self.record[FILES] = checksums_in(self.folder, *SCORES)
        if self.module.teacher_cache is not None:
            self.record["teacher"] |= {"cache": self.module.teacher_cache.statistics}
        if "report/bleu" in metrics:
            self.record["metric_signatures"] = signatures()
        results.log_final(trainer, self.record, metrics)
        self._write()
        callback_of(trainer, Pictures).draw(trainer, self.module)
        logger.debug("the run took %.1f s, training %.1f s", self.record["seconds"], metrics["cost/train_seconds"])
        if is_first_process():
            self.result = fit_result(self, metrics)

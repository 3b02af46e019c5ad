"""The command line on LightningCLI: it composes configurations and prepares the run of each subcommand."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from smoa_lightning.adapters.budget import like_file
from smoa_lightning.common import console
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.common.folder_names import check_folder_name
from smoa_lightning.common.paths import local_path
from smoa_lightning.common.process_cache import cached
from smoa_lightning.configuration import expand_bases, needs_checkpoint
from smoa_lightning.configuration.class_names import check_checkpoint_settings
from smoa_lightning.configuration.import_policy import check_only_classes, import_policy
from smoa_lightning.configuration.parser import OneSentenceParser, refused_strategy
from smoa_lightning.configuration.path_settings import expand_places
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.objectives import objective_of
from smoa_lightning.training.callbacks import (
    AdapterCheckpoint,
    CostMonitor,
    Forgetting,
    ItemScores,
    Pictures,
    RankMonitor,
    SamplePredictions,
)
from smoa_lightning.training.checkpoint import evaluated, read_checkpoint
from smoa_lightning.training.evaluate import evaluate
from smoa_lightning.training.loggers.place import check_loggers
from smoa_lightning.training.module import FineTuneModule
from smoa_lightning.training.processes import check_accelerator, check_distributed_strategy
from smoa_lightning.training.progress_bar import fit_terminal
from smoa_lightning.training.progress_lines import progress_lines
from smoa_lightning.training.run import Run
from smoa_lightning.training.run_logger import RunLogger
from smoa_lightning.training.run_names import run_name
from smoa_lightning.training.run_notes import announce, announce_sources
from smoa_lightning.training.sharding import check_shardable, own_strategy
from smoa_lightning.training.trainer_checks import check_trainer

logger = logging.getLogger(__name__)
SAVED_SETTINGS = ("seed_everything", "model", "data", "forgetting")  # that an evaluation takes from a checkpoint


@dataclass
class RunConfig:
    """Folder and name of a run, and which scores it has.

    Args:
        root: Folder of all runs; TensorBoard reads it.
        folder: Exact folder of this run, instead of ``<root>/<name>/version_N``.
        name: Name of this run; by default made of task, strategy, its sizes, seed and backbone.
        score_base: Score the base model on the report rows before training.
        score_report: Score the best adapter on the report rows after training; searches do not.
    """

    root: str = "runs"
    folder: str | None = None
    name: str | None = None
    score_base: bool = True
    score_report: bool = True


class FineTuneCLI(LightningCLI):
    """The subcommands fit, validate, test and predict.

    Flags replace settings of files, later files replace earlier files, and files replace settings of a checkpoint. A
    file may name a ``base:`` file, with a path relative to itself; the ``base:`` file is read first.
    """

    def __init__(
        self,
        args: ArgsType = None,
        run: bool = True,
        callbacks: Sequence[Callback] = (),
        notes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Parse the command line and, with ``run``, execute it.

        Args:
            args: The command line.
            run: With ``False``, only instantiate the classes; the command line has no subcommand.
            callbacks: Further callbacks; they must not change what the run computes.
            notes: Further parts of the record of a training run.
        """
        self.run: Run | None = None
        self._callbacks, self._notes = callbacks, notes
        self._asked = args[0] if run and isinstance(args, list) and args else None
        try:
            super().__init__(
                FineTuneModule,
                TaskDataModule,
                parser_class=OneSentenceParser,
                save_config_callback=None,  # the run writes config.yaml itself, in its own folder
                seed_everything_default=0,
                auto_configure_optimizers=False,  # it would take frozen weights, and not the adapter
                load_from_checkpoint_support=False,
                args=args,
                run=run,
            )
        finally:
            if self.run is not None:
                self.run.release()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the settings of the run, and each callback under its own name, so that files need not merge lists."""
        adamw = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3, "weight_decay": 0.0}}
        parser.set_defaults({"model.optimizer": adamw})  # settings, unlike a function, fit into records and checkpoints
        parser.add_class_arguments(RunConfig, "run")
        parser.add_argument("--base", type=str | None, default=None, help="File read before this one.")
        parser.add_lightning_class_args(AdapterCheckpoint, "checkpoint")
        parser.add_lightning_class_args(CostMonitor, "cost_monitor")
        parser.add_lightning_class_args(RankMonitor, "rank_monitor")
        parser.add_lightning_class_args(Pictures, "pictures")
        parser.add_lightning_class_args(SamplePredictions, "sample_predictions")
        parser.add_lightning_class_args(Forgetting, "forgetting")

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Leave out settings that this package decides: how checkpoints are read, and what is shown and returned.

        Only the given subcommand gets a parser, since building a parser is slow.
        """
        known = {
            name: skip | {"weights_only", "verbose", "return_predictions"}
            for name, skip in LightningCLI.subcommands().items()
        }
        return {self._asked: known[self._asked]} if self._asked in known else known

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Build the parser; the runs of a study's worker share one, since parsing does not change it."""

        def build() -> dict[str, Any]:
            before = set(vars(self))
            super(FineTuneCLI, self).setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
            return {name: value for name, value in vars(self).items() if name not in before}

        vars(self).update(cached("parser", (type(self), add_subcommands, self._asked), build))

    # ------------------------------------------------------------------------------------------------- parsing

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the settings of the checkpoint, the ``base:`` files and the given files, in this order."""
        assert isinstance(args, list), "the dispatcher passes the command line as a list"
        with contextlib.ExitStack() as stack:
            expanded = expand_bases(args)
            checkpoint = _flag(args, "--ckpt_path")
            if checkpoint is not None and args[0] != "fit":
                saved = stack.enter_context(_config_file_of(local_path(checkpoint)))
                with import_policy(allowed_only=True):
                    parser.parse_args([args[0], "--config", str(saved)])  # refuses classes that are not allowed
                expanded[1:1] = ["--config", str(saved)]
            with import_policy(allowed_only=False):
                self.config = parser.parse_args(expanded)
            check_only_classes(self.config[self._asked] if self._asked else self.config)
        self.config_files = [Path(file) for flag, file in pairwise(expanded) if flag == "--config"]

    def _parse_ckpt_path(self) -> None:
        """Do nothing: in LightningCLI, a checkpoint overrides the command line here."""

    # --------------------------------------------------------------------------------------------- instantiation

    def before_instantiate_classes(self) -> None:
        """Set missing seeds to ``seed_everything``, so that a run named seed1 differs from seed0."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        check_distributed_strategy(config["trainer.strategy"])
        check_accelerator(config["trainer.accelerator"])
        config["trainer.strategy"] = own_strategy(config["trainer.strategy"])
        check_loggers(config.get("trainer.logger"))
        for key in ("model.adapter_seed", "data.seed"):
            if config[key] is None:
                config[key] = int(config["seed_everything"])
        expand_places(config)
        config["base"] = None  # already read; the run's config.yaml is in a different folder
        budget = config["model.budget"]
        if isinstance(budget, dict) and "like" in budget:
            folders = [f.parent for f in reversed(self.config_files) if f.is_file() and _budget_in(f) == budget]
            config["model.budget"] = {"like": str(like_file(budget["like"], folders[0] if folders else None))}

    def instantiate_classes(self) -> None:
        """Instantiate model, data and trainer; Lightning 2.6 calls a deprecated name of jsonargparse."""
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=r"(?s).*(instantiate_classes|Jsonargparse)", category=DeprecationWarning
            )
            try:
                with import_policy(allowed_only=False):
                    super().instantiate_classes()
            except (UserError, OSError):
                raise
            except Exception as error:  # errors of Lightning, torch and peft have no common class
                logger.debug("the error in full:", exc_info=True)
                raise (refused_strategy() or UserError(_sentence(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Decide the sources of the run, instantiate its trainer, then decide the folder."""
        self.model.objective = objective_of(self.datamodule.sets)
        if self.subcommand is None:
            return super().instantiate_trainer(logger=False, **kwargs)
        self.datamodule.resolve()
        announce_sources(self.model, self.datamodule)
        self._apply_budget()
        self._record_class_names()
        self.config_dump = json.loads(json.dumps(self.config[self.subcommand].as_dict(), default=str))
        options = RunConfig(**self._get(self.config, "run").as_dict())
        seed = self._get(self.config, "seed_everything")
        name = run_name(self.model, self.datamodule, seed) if options.name is None else options.name
        check_folder_name(name, "run.name")
        scored = options.score_base, options.score_report
        self.run = Run(self.model, self.datamodule, self.config_dump, name, *scored, self._notes)
        logger = self._get(self.config_init, "trainer").get("logger")
        if logger is None or logger is True:
            kwargs["logger"] = False  # it needs the folder
        kwargs["enable_checkpointing"] = True  # AdapterCheckpoint; Lightning then adds no callback of its own
        if console.is_quiet():
            kwargs["enable_model_summary"] = False
        trainer = super().instantiate_trainer(**kwargs)
        check_trainer(trainer, self._callbacks)
        check_shardable(trainer.strategy, self.model.backbone_config.quantization)
        if self.subcommand == "fit":
            logs = kwargs.get("logger") is False or bool(trainer.loggers)
            self.run.choose_folder(options.root, options.folder, trainer, logs)
        else:
            self.run.choose_output(options.root, options.folder, self.subcommand, self._get(self.config, "ckpt_path"))
        announce(self.run)
        trainer._default_root_dir = str(self.run.folder)  # type: ignore[attr-defined]
        if kwargs.get("logger") is False:
            trainer.logger = RunLogger(self.run.folder, self.run.resumed_step())
        fit_terminal(trainer.progress_bar_callback)
        lines = progress_lines(trainer.progress_bar_callback, in_study=bool(self._notes))
        trainer.callbacks += [ItemScores(), *lines, *self._callbacks]  # type: ignore[attr-defined]
        return trainer

    def _apply_budget(self) -> None:
        """Replace the budget by the sizes that meet it, in the record and for a resumed run."""
        config = self.config[self.subcommand]
        fit = self.model.resolve_budget()
        if fit is not None:
            config["model.budget"] = None
            for name, value in fit.changes.items():
                config[f"model.adapter.init_args.{name}"] = value

    def _record_class_names(self) -> None:
        """Put the names of the classes of your own images into the record: a test then needs no training images."""
        names = self.datamodule.sets.task.options.get("class_names")
        if names is not None:
            self.config[self.subcommand]["data.class_names"] = list(names)

    # ----------------------------------------------------------------------------------------------- subcommands

    def fit(self, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """Score the base model, train, score the best adapter on the report rows, and complete the record."""
        assert self.run is not None
        with _refused_by_lightning():
            self.run.fit(self.trainer, ckpt_path)

    def validate(self, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """Score the selection rows."""
        self._evaluate(self.trainer.validate, ckpt_path, verbose=False)

    def test(self, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """Score the report rows."""
        self._evaluate(self.trainer.test, ckpt_path, verbose=False)

    def predict(self, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """Score the report rows and write ``predictions.jsonl``."""
        self._evaluate(self.trainer.predict, ckpt_path, return_predictions=False)

    def _evaluate(self, function: Any, ckpt_path: str | None, **kwargs: Any) -> None:
        if ckpt_path is None and not self.model.frozen:
            raise UserError(needs_checkpoint(str(self.subcommand)))
        assert self.run is not None
        with _refused_by_lightning():
            evaluate(self.run, self.trainer, function, ckpt_path, **kwargs)


def _sentence(error: Exception) -> str:
    """Return the text of a library's error in one line; an error without words gets its class."""
    return one_line(error, kind=not isinstance(error, ValueError | MisconfigurationException))


@contextlib.contextmanager
def _refused_by_lightning() -> Iterator[None]:
    """Turn Lightning's error about a setting into one sentence."""
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(_sentence(error)) from error
    except RuntimeError as error:
        if not str(error).startswith("Early stopping conditioned on metric"):
            raise
        raise UserError(f"trainer.callbacks: {one_line(error)}") from error


def _budget_in(file: Path) -> Any:
    """Return ``model.budget`` of a configuration file."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    model = content.get("model") if isinstance(content, dict) else None
    return model.get("budget") if isinstance(model, dict) else None


def _flag(args: list[str], name: str) -> str | None:
    """Return the value of the last ``name VALUE`` or ``name=VALUE`` among the arguments."""
    value = None
    for index, argument in enumerate(args):
        if argument == name and index + 1 < len(args):
            value = args[index + 1]
        elif argument.startswith(f"{name}="):
            value = argument.split("=", 1)[1]
    return value


@contextlib.contextmanager
def _config_file_of(checkpoint: Path) -> Iterator[Path]:
    """Write the settings of a checkpoint that an evaluation keeps to a temporary file."""
    saved = evaluated(read_checkpoint(checkpoint)["config"])
    check_checkpoint_settings(saved, str(checkpoint))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.yaml"
        file.write_text(yaml.safe_dump({key: saved[key] for key in SAVED_SETTINGS if key in saved}))
        yield file

"""Every flag of Lightning's Trainer and every callback of Lightning works, or is refused by name before any scoring."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging
from lightning.pytorch.plugins import AsyncCheckpointIO

from smoa_lightning.__main__ import main
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.trainer_options import CALLBACKS, DERIVED
from smoa_lightning.training.callbacks import AdapterCheckpoint
from smoa_lightning.training.cli import FineTuneCLI
from smoa_lightning.training.trainer_checks import check_observers, check_trainer

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
Seen = Callable[[L.Trainer], Any]

# Flag -> its value, and what a trainer with it shows after the run; all of them in one run.
TOGETHER: dict[str, tuple[Any, Seen]] = {
    "accelerator": ("cpu", lambda t: t.strategy.root_device.type == "cpu"),
    "strategy": ("auto", lambda t: t.world_size == 1),
    "devices": (1, lambda t: t.num_devices == 1),
    "num_nodes": (1, lambda t: t.num_nodes == 1),
    "precision": ("bf16-mixed", lambda t: t.precision == "bf16-mixed"),
    "logger": (True, lambda t: t.logger is not None),
    "max_epochs": (9, lambda t: t.max_epochs == 9),
    "min_epochs": (1, lambda t: t.min_epochs == 1),
    "max_steps": (4, lambda t: t.global_step == 4),
    "min_steps": (1, lambda t: t.min_steps == 1),
    "max_time": ("00:01:00:00", lambda t: t.max_steps == 4),
    "limit_train_batches": (3, lambda t: t.num_training_batches == 3),
    "limit_val_batches": (1, lambda t: t.limit_val_batches == 1),
    "limit_test_batches": (1, lambda t: t.num_test_batches == [1]),
    "limit_predict_batches": (1, lambda t: t.limit_predict_batches == 1),
    "val_check_interval": (2, lambda t: t.val_check_batch == 2),
    "check_val_every_n_epoch": (1, lambda t: t.check_val_every_n_epoch == 1),
    "num_sanity_val_steps": (1, lambda t: t.num_sanity_val_steps == 1),
    "log_every_n_steps": (1, lambda t: t.log_every_n_steps == 1),
    "enable_progress_bar": (False, lambda t: t.progress_bar_callback is None),
    "enable_model_summary": (False, lambda t: not any("Summary" in type(c).__name__ for c in t.callbacks)),
    "accumulate_grad_batches": (2, lambda t: t.accumulate_grad_batches == 2),
    "gradient_clip_val": (0.5, lambda t: t.gradient_clip_val == 0.5),
    "gradient_clip_algorithm": ("value", lambda t: t.gradient_clip_algorithm == "value"),
    "deterministic": ("warn", lambda t: torch.is_deterministic_algorithms_warn_only_enabled()),
    "benchmark": (False, lambda t: True),  # chooses kernels of convolutions
    "inference_mode": (False, lambda t: not t.validate_loop.inference_mode),
    "use_distributed_sampler": (False, lambda t: True),  # batches come from an order of this package
    "profiler": ("simple", lambda t: "optimizer_step" in " ".join(t.profiler.recorded_durations)),
    "detect_anomaly": (True, lambda t: t._detect_anomaly),
    "sync_batchnorm": (True, lambda t: True),  # batch norm keeps the statistics of the backbone
    "reload_dataloaders_every_n_epochs": (1, lambda t: t.fit_loop._data_source.instance is not None),
    "enable_autolog_hparams": (False, lambda t: not t.enable_autolog_hparams),
    "plugins": ("lightning.pytorch.plugins.environments.LightningEnvironment", lambda t: t.global_step == 4),
}
ALONE = {"fast_dev_run": (2, lambda t: t.global_step == 2)}
REFUSED_FLAGS = {
    "enable_checkpointing": (False, "trainer.enable_checkpointing is false, but a run always writes"),
    "default_root_dir": ("x", "trainer.default_root_dir is 'x', but run.root sets the folder"),
    "barebones": (True, "trainer.barebones is true, but a run needs its logger"),
    "overfit_batches": (1, "set data.limit_train_rows to the number of rows"),
    "model_registry": ("x", "trainer.model_registry is 'x', but a run is saved in its folder alone"),
}
# Values of flags that are refused, although other values work.
REFUSED_VALUES = [
    ("--trainer.profiler pytorch", "trainer.profiler is 'pytorch', but it measures one stage"),
    ("--trainer.profiler lightning.pytorch.profilers.PyTorchProfiler", "it measures one stage"),
    ("--trainer.precision bf16-true", "takes 32-true, bf16-mixed or 16-mixed"),
    ("--trainer.precision transformer-engine", "takes 32-true, bf16-mixed or 16-mixed"),
    (
        "--trainer.plugins lightning.pytorch.plugins.HalfPrecision --trainer.plugins.precision bf16-true",
        "HalfPrecision has the precision bf16-true",
    ),
    ("--trainer.plugins lightning.pytorch.plugins.DoublePrecision", "DoublePrecision has the precision 64-true"),
    ("--trainer.plugins lightning.pytorch.plugins.TorchCheckpointIO", "TorchCheckpointIO is not supported"),
    ("--trainer.plugins lightning.pytorch.plugins.AsyncCheckpointIO", "AsyncCheckpointIO is not supported"),
    ("--trainer.strategy ddp_spawn", "trainer.strategy is 'ddp_spawn', but takes auto, ddp"),
    (
        "--trainer.strategy lightning.pytorch.strategies.DDPStrategy --trainer.strategy.start_method spawn",
        "start_method is 'spawn', but must be popen",
    ),
    ("--trainer.limit_val_batches 0.1", "trainer.limit_val_batches is 0.1, which leaves none of the batches (1)"),
    ("--trainer.limit_test_batches 0.1", "trainer.limit_test_batches is 0.1, which leaves none of the batches (1)"),
    ("--trainer.logger false --trainer.callbacks LearningRateMonitor", "LearningRateMonitor needs a logger"),
    ("--trainer.callbacks EarlyStopping --trainer.callbacks.monitor nope", "which no run logs during training"),
    (
        "--trainer.max_steps 1 --trainer.callbacks EarlyStopping --trainer.callbacks.monitor selection/acc",
        "training ends before the first scoring of the selection rows",
    ),
]
# Callback -> its arguments, and what it shows after the run.
WORKING: dict[str, tuple[dict[str, Any], Callable[[Any, L.Trainer], Any]]] = {
    "BasePredictionWriter": ({}, lambda c, t: c.interval.on_batch),
    "Callback": ({}, lambda c, t: True),
    "Checkpoint": ({}, lambda c, t: True),
    "DeviceStatsMonitor": ({"cpu_stats": True}, lambda c, t: True),
    "EarlyStopping": (
        {"monitor": "selection/acc", "mode": "max", "stopping_threshold": -1.0},
        lambda c, t: c.stopped_epoch == 0 and t.global_step == 2,  # after the first validation
    ),
    "LambdaCallback": ({"on_train_start": lambda *_: None}, lambda c, t: True),
    "LearningRateMonitor": ({}, lambda c, t: next(iter(c.lrs.values()))),
    "ModelSummary": ({}, lambda c, t: True),
    "OnExceptionCheckpoint": ({"dirpath": "unused"}, lambda c, t: not Path(c.dirpath).exists()),
    "RichModelSummary": ({}, lambda c, t: True),
    "TQDMProgressBar": ({}, lambda c, t: t.progress_bar_callback is c),
    "ThroughputMonitor": ({"batch_size_fn": lambda batch: len(batch["input_ids"])}, lambda c, t: True),
    "Timer": ({"duration": "00:01:00:00"}, lambda c, t: c.time_elapsed("train") > 0),
}
BARS = {"ProgressBar", "RichProgressBar"}  # a trainer has one
REFUSED_CALLBACKS = {*CALLBACKS, *DERIVED}


def arguments(root: Path, **flags: Any) -> list[str]:
    """Return the command line of a run of seconds; values replace the flags of the trainer."""
    limits = {"max_steps": 2, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False} | flags
    return [
        *("fit", "--config", str(EXPERIMENTS / "piqa.yaml"), "--config", str(EXPERIMENTS / "backbones/embedded.yaml")),
        *("--config", str(EXPERIMENTS / "adapters/lora.yaml"), "--data.limit_train_rows", "16"),
        *("--data.limit_report_rows", "4", "--data.selection_rows", "4", "--data.batch_size", "4"),
        *("--forgetting.text", "null", "--rank_monitor.max_layers", "0", "--run.root", str(root)),
        *(
            f"--trainer.{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in limits.items()
        ),
    ]


def finished(root: Path) -> bool:
    return [json.loads(file.read_text())["status"] for file in root.glob("*/*/record.json")] == ["finished"]


def refused(words: Sequence[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that a run ends with one sentence before it scores anything."""
    assert main([*arguments(tmp_path, max_steps=4), *words]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert "scoring the base model" not in shown.out
    assert not finished(tmp_path)


# ------------------------------------------------------------------------------------------------------------- flags


def test_every_flag_of_the_trainer_is_here() -> None:
    known = {*TOGETHER, *ALONE, *REFUSED_FLAGS, "callbacks"}
    assert known == {*inspect.signature(L.Trainer.__init__).parameters} - {"self"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("flags", [TOGETHER, *({name: given} for name, given in ALONE.items())], ids=["all", *ALONE])
def test_flags_that_work(flags: dict[str, tuple[Any, Seen]], tmp_path: Path) -> None:
    try:
        trainer = FineTuneCLI(arguments(tmp_path, **{name: value for name, (value, _) in flags.items()})).trainer
        assert finished(tmp_path)
        assert [name for name, (_, seen) in flags.items() if not seen(trainer)] == []
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("flag", REFUSED_FLAGS)
def test_flags_that_are_refused(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value, message = REFUSED_FLAGS[flag]
    refused([f"--trainer.{flag}={value if isinstance(value, str) else json.dumps(value)}"], message, tmp_path, capsys)


@pytest.mark.parametrize(("words", "message"), REFUSED_VALUES, ids=[words for words, _ in REFUSED_VALUES])
def test_values_that_are_refused(words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    precision = ["--trainer.precision", "null"] if "Precision" in words else []
    refused([*precision, *words.split()], message, tmp_path, capsys)


# --------------------------------------------------------------------------------------------------------- callbacks


def test_every_callback_of_lightning_is_here() -> None:
    exported = {name: getattr(lightning_callbacks, name) for name in lightning_callbacks.__all__}
    assert all(issubclass(kind, Callback) for kind in exported.values())
    assert {*WORKING, *BARS, *REFUSED_CALLBACKS} == {*exported}
    assert all(issubclass(exported[name], exported[base]) for name, base in DERIVED.items())


@pytest.mark.filterwarnings("ignore")
def test_callbacks_that_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = {name: getattr(lightning_callbacks, name)(**given) for name, (given, _) in WORKING.items()}
    settings = {"enable_progress_bar": True, "val_check_interval": 2, "max_steps": 4, "log_every_n_steps": 1}
    bar = {"class_path": "lightning.pytorch.callbacks.TQDMProgressBar"}
    del made["TQDMProgressBar"]  # the trainer looks for its bar when it is made
    cli = FineTuneCLI([*arguments(tmp_path, **settings, callbacks=[bar])], callbacks=[*made.values()])
    assert finished(tmp_path)
    made["TQDMProgressBar"] = cli.trainer.progress_bar_callback
    assert [name for name, (_, seen) in WORKING.items() if not seen(made[name], cli.trainer)] == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bar", sorted(BARS))
def test_other_progress_bars_work(bar: str, tmp_path: Path) -> None:
    given = {"class_path": f"lightning.pytorch.callbacks.{bar}"}
    trainer = FineTuneCLI([*arguments(tmp_path, enable_progress_bar=True, callbacks=[given])]).trainer
    assert finished(tmp_path)
    assert type(trainer.progress_bar_callback).__name__ == bar


@pytest.mark.parametrize("name", sorted(REFUSED_CALLBACKS))
def test_callbacks_that_are_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for class_path in (f"lightning.pytorch.callbacks.{name}", name):
        refused(["--trainer.callbacks", class_path], f"trainer.callbacks: {name} is not supported", tmp_path, capsys)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("monitor", "tasks", "nearest"),
    [
        ("selection/piqa/acc", ["piqa", "boolq"], None),
        ("selection/chat/bleu_stderr", ["piqa", "chat"], None),
        ("selection/acc", ["piqa", "boolq"], None),
        ("selection/piqa/acc", ["piqa"], "selection/acc,"),  # one task has no part of its own
        ("selection/piqa/acc", ["boolq", "hellaswag"], "selection/boolq/acc"),
    ],
)
def test_what_early_stopping_monitors_is_logged(monitor: str, tasks: list[str], nearest: str | None) -> None:
    trainer = L.Trainer(callbacks=[EarlyStopping(monitor)], logger=False, accelerator="cpu", enable_checkpointing=False)
    if nearest is not None:
        words = rf"monitors '{monitor}', which no run logs .* nearest (is|are) (.*, )?{nearest}"
        with pytest.raises(UserError, match=words):
            check_observers(trainer, True, tasks)
        return
    check_observers(trainer, True, tasks)
    with pytest.raises(UserError, match="before the first scoring of the selection rows"):
        check_observers(trainer, False, tasks)


def test_subclasses_and_plugins_in_python_are_refused(tmp_path: Path) -> None:
    class Mine(EMAWeightAveraging):
        pass

    quiet: dict[str, Any] = {"logger": False, "accelerator": "cpu", "enable_checkpointing": False}
    with pytest.raises(UserError, match=r"^trainer\.callbacks: Mine is not supported"):
        check_trainer(L.Trainer(callbacks=[Mine()], **quiet))
    with pytest.raises(UserError, match=r"^trainer\.callbacks: Mine is not supported"):
        FineTuneCLI(arguments(tmp_path), callbacks=[Mine()])
    check_trainer(
        L.Trainer(callbacks=[EarlyStopping("x"), AdapterCheckpoint()], **quiet | {"enable_checkpointing": True})
    )
    with pytest.raises(UserError, match="AsyncCheckpointIO is not supported"):
        AdapterCheckpoint().setup(L.Trainer(plugins=[AsyncCheckpointIO()], **quiet), None, "fit")


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_after_an_error_is_written_in_a_new_folder(tmp_path: Path) -> None:
    class Fails(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise RuntimeError("made to fail")

    written = lightning_callbacks.OnExceptionCheckpoint(tmp_path / "new" / "folder")
    with pytest.raises(RuntimeError, match="made to fail"):
        FineTuneCLI([*arguments(tmp_path / "runs"), "--run.score_base=false"], callbacks=[written, Fails()])
    assert (tmp_path / "new" / "folder" / "on_exception.ckpt").is_file()

"""Other loggers than the default one: settings, final metrics, predictions, groups, and the same entry again."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger, Logger
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from smoa_lightning.__main__ import main
from smoa_lightning.common.errors import UserError
from smoa_lightning.training.callbacks import pictures
from smoa_lightning.training.loggers import csv_points, results
from smoa_lightning.training.loggers.contents import Table
from smoa_lightning.training.loggers.csv_points import continue_csv, read_points
from smoa_lightning.training.loggers.place import check_loggers, places
from smoa_lightning.training.run_logger import RunLogger

from ..runs import Killed, die_at_step, interrupt_in_last_scoring, only_run

SHORT = ["--data.limit_train_rows", "24", "--trainer.limit_test_batches", "1", "--forgetting.text", "null"]
SHORT += ["--trainer.log_every_n_steps", "1", "--checkpoint.every_n_steps", "1", "--pictures.min_steps", "0"]
CALLS: list[tuple[str, Any]] = []  # of all recorders of this process


class Recorder(Logger):
    """A logger of the user's own, which has only what Lightning asks for."""

    @property
    def name(self) -> str:
        return "recorder"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        CALLS.append(("settings", dict(params)))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        CALLS.append(("metrics", dict(metrics)))


def logging_to(tmp_path: Path, *loggers: dict[str, Any]) -> list[str]:
    file = tmp_path / "loggers.yaml"
    file.write_text(yaml.safe_dump({"trainer": {"logger": list(loggers)}}))
    return ["--config", str(file), *SHORT]


def csv_logger(tmp_path: Path) -> dict[str, Any]:
    return {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path / "csv"), "flush_logs_every_n_steps": 1}}


def test_csv_has_what_a_run_measured_and_an_interrupted_run_continues_its_file(
    tiny_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["fit", *tiny_arguments, *logging_to(tmp_path, csv_logger(tmp_path))]
    with monkeypatch.context() as patch:
        die_at_step(patch, 2)
        with pytest.raises(Killed):
            main(arguments)
    named = only_run(tmp_path / "runs").parent
    old = named.rename(named.with_name("piqa-smoa_spectral_blocks-r4-K2-seed0-local"))  # its name in version 0.1
    assert main(arguments) == 0
    assert only_run(tmp_path / "runs") == old / "version_0"
    (folder,) = (tmp_path / "csv" / "lightning_logs").iterdir()  # no second version
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows if row["train/loss"]]
    assert steps == [0, 1, 2]  # each point once
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    (final,) = [row for row in rows if row["final/acc"]]
    assert float(final["final/acc"]) == pytest.approx(record["metrics"]["report/acc"])
    settings = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert (settings["rank"], settings["seed"], settings["learning_rate"]) == (4, "0", pytest.approx(0.02))
    with (folder / "predictions" / "report.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 16
    assert (folder / "update_pictures" / "rank.png").read_bytes().startswith(b"\x89PNG")
    assert record["loggers"] == {"0 CSVLogger": 0}


HEAD, FIRST, SECOND = "loss,step\r\n", "0.5,0\r\n", "0.25,1\r\n"


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (HEAD + FIRST + SECOND, FIRST + SECOND),
        (HEAD + FIRST + "0.25", FIRST),  # the last line lacks its step
        (HEAD + FIRST + "0.25,", FIRST),
        (HEAD + FIRST + "0.25,1", FIRST),  # perhaps step 10
        (HEAD + FIRST + "0.2\r\n" + SECOND, FIRST + SECOND),  # a machine without power
        (HEAD + FIRST + "\0\0\0\0\n" + SECOND, FIRST + SECOND),
        (HEAD + FIRST + SECOND + "0.1,2\r\n", FIRST + SECOND),  # the resumed run writes it again
        ("lo", ""),
        ("", ""),
    ],
)
def test_half_lines_of_a_killed_run_are_left_out(content: str, kept: str, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, version=0)
    file = Path(logger.log_dir) / "metrics.csv"
    file.parent.mkdir(parents=True)
    file.write_bytes(content.encode())
    continue_csv(logger, 2)
    logger.log_metrics({"loss": 0.125}, 2)
    logger.save()
    assert file.read_bytes().decode() == HEAD + kept + "0.125,2\r\n"
    logger.log_metrics({"acc": 1.0}, 3)  # a new column
    logger.save()
    assert [point["step"] for point in read_points(file)[1]][-2:] == ["2", "3"]


def test_a_kill_while_the_file_is_written_again_loses_no_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = CSVLogger(tmp_path, version=0)
    logger.log_metrics({"loss": 0.5}, 0)
    logger.save()
    file = Path(logger.log_dir) / "metrics.csv"
    before = file.read_bytes()

    def die(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(csv_points.csv.DictWriter, "writerows", die)
        with pytest.raises(Killed):
            continue_csv(CSVLogger(tmp_path, version=0), 1)
    assert file.read_bytes() == before
    continue_csv(again := CSVLogger(tmp_path, version=0), 1)
    with monkeypatch.context() as patch:
        patch.setattr(csv_points.csv.DictWriter, "writerows", die)
        again.log_metrics({"acc": 1.0}, 1)
        with pytest.raises(Killed):
            again.save()
    assert file.read_bytes() == before


@pytest.mark.parametrize("error", [OSError("no space\nleft"), KeyboardInterrupt()])
def test_what_fails_after_the_record_leaves_the_run_finished(
    error: BaseException,
    tiny_arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*args: Any) -> None:
        record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
        assert record["status"] == "finished"
        raise error

    monkeypatch.setattr(pictures, "layer_pictures", fail)
    assert main(["fit", *tiny_arguments, *SHORT]) == (0 if isinstance(error, OSError) else 130)
    assert json.loads((only_run(tmp_path / "runs") / "record.json").read_text())["status"] == "finished"
    if isinstance(error, OSError):
        assert "pictures are missing (OSError: no space left); --pictures.layers 0" in capsys.readouterr().err


def test_an_entry_that_cannot_be_closed_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[Any] = []

    def leave(loggers: list[Any], status: str) -> None:
        closed.extend((each, status) for each in loggers)
        raise ConnectionError("no\nserver")

    monkeypatch.setattr(results, "leave", leave)
    trainer = L.Trainer(logger=[CSVLogger("one"), CSVLogger("two")], accelerator="cpu")
    results.end(trainer, {"status": "finished"})
    assert closed == [(each, "finished") for each in trainer.loggers]
    assert [record.getMessage() for record in caplog.records if "is not closed" in record.getMessage()] == [
        "the entry in CSVLogger is not closed: ConnectionError: no server"
    ] * 2


def test_a_logger_of_the_users_own_gets_settings_groups_and_final_metrics(
    tiny_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from smoa_lightning.training import cli

    monkeypatch.setattr(cli, "check_loggers", lambda setting: None)
    CALLS.clear()
    original = cli.FineTuneCLI.instantiate_trainer

    def with_recorder(self: Any, **kwargs: Any) -> Any:
        trainer = original(self, **kwargs)
        trainer.logger = Recorder()
        return trainer

    monkeypatch.setattr(cli.FineTuneCLI, "instantiate_trainer", with_recorder)
    assert main(["fit", *tiny_arguments, *SHORT]) == 0
    (settings,) = [content for kind, content in CALLS if kind == "settings"]
    assert (settings["strategy"], settings["stage"], settings["seed"]) == ("smoa_spectral_blocks", "run", "0")
    points = [name for kind, content in CALLS if kind == "metrics" for name in content]
    assert {"train/loss", "base/acc", "report/acc", "selection/acc", "final/acc", "rank/effective_mean"} <= set(points)


def test_replies_of_a_model_are_no_formulas_in_a_csv_file() -> None:
    table = Table("samples", ["prompt", "reply"], [["2 - 1?", "-1"], ["Say it.", '=HYPERLINK("x")'], ["", "@SUM(A1)"]])
    replies = [row["reply"] for row in csv.DictReader(table.csv().splitlines())]
    assert replies == ["-1", '\'=HYPERLINK("x")', "'@SUM(A1)"]


def test_groups() -> None:
    study = {"study": "ranks", "cell": "r=8", "stage": "final", "seed": 1}
    assert places(study, "ignored", 0) == {"study": "ranks", "cell": "r=8", "stage": "final", "seed": "1"}


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        ({"class_path": "WandbLogger"}, "WandbLogger needs the package wandb"),
        ({"class_path": "lightning.pytorch.loggers.MLFlowLogger"}, "MLFlowLogger needs the package mlflow"),
        ({"class_path": "WandbLogger", "init_args": {"log_model": "all"}}, "log_model of WandbLogger is not supported"),
    ],
)
def test_what_cannot_work_is_refused(logger: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = "init_args" in logger
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    with pytest.raises(UserError, match=message):
        check_loggers([logger])
    check_loggers([{"class_path": "CSVLogger", "init_args": {"save_dir": "logs"}}])
    check_loggers(True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of mlflow and its database
@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed (extra `loggers`)")
def test_mlflow_has_one_run_with_all_of_it(
    tiny_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    store = f"sqlite:///{tmp_path}/mlflow.db"
    options = {"tracking_uri": store, "artifact_location": str(tmp_path / "artifacts")}
    arguments = [*tiny_arguments, *logging_to(tmp_path, {"class_path": "MLFlowLogger", "init_args": options})]
    interrupt_in_last_scoring(arguments, monkeypatch)
    assert main(["fit", *arguments]) == 0
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("lightning_logs").experiment_id])
    folder = only_run(tmp_path / "runs")
    record = json.loads((folder / "record.json").read_text())
    assert (run.info.run_name, run.info.status) == (folder.parent.name, "FINISHED")
    assert run.data.params["rank"] == "4"
    assert run.data.metrics["final/acc"] == pytest.approx(record["metrics"]["report/acc"])
    assert (run.data.tags["seed"], run.data.tags["stage"]) == ("0", "run")
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id, "predictions")}
    assert {"predictions/base.csv", "predictions/report.csv"} <= artifacts
    assert record["loggers"] == {"0 MLFlowLogger": run.info.run_id}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of wandb
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed (extra `loggers`)")
def test_wandb_offline_has_one_run_with_all_of_it(
    tiny_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    options = {"offline": True, "save_dir": str(tmp_path)}
    arguments = [*tiny_arguments, *logging_to(tmp_path, {"class_path": "WandbLogger", "init_args": options})]
    ended: list[tuple[Any, ...]] = []
    original = wandb.Run.finish

    def finish(self: Any, *args: Any, **kwargs: Any) -> Any:
        ended.append((self.id, self.name, self.group, dict(self.config), dict(self.summary)))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(wandb.Run, "finish", finish)
    interrupt_in_last_scoring(arguments, monkeypatch)
    assert main(["fit", *arguments]) == 0
    (first, *_), (number, name, group, config, summary) = ended
    folder = only_run(tmp_path / "runs")
    record = json.loads((folder / "record.json").read_text())
    assert first == number == record["loggers"]["0 WandbLogger"]
    assert (name, group) == (folder.parent.name, folder.parent.name.replace("-seed0", ""))
    assert (config["rank"], config["strategy"]) == (4, "smoa_spectral_blocks")
    assert summary["final/acc"] == pytest.approx(record["metrics"]["report/acc"])
    media = [path.name for path in tmp_path.glob("wandb/offline-run-*/files/media/**/*") if path.is_file()]
    assert any(name.startswith("report_") for name in media)
    assert any(name.startswith("rank_") for name in media)
    assert wandb.run is None  # the next run of this process gets its own entry


def test_final_metrics_that_are_written_again_are_one_entry_of_the_hparams_tab(tmp_path: Path) -> None:
    """A run that is killed before its record says that it is finished writes them again, from its last step on."""
    for purge_step in (None, 3):
        logger = RunLogger(tmp_path, purge_step)
        trainer: Any = SimpleNamespace(loggers=[logger], global_step=3)
        results.log_final(trainer, {"hyperparameters": {"lr": 0.1}}, {"report/acc": 0.5, "report/acc_stderr": 0.1})
        logger.experiment.close()
    log = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    points = {tag: len(log.Tensors(tag)) for tag in log.Tags()["tensors"]}
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= points.keys()
    assert set(points.values()) == {1}

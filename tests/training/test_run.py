"""A run from its first file to its last: what it writes, what it takes from another one, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from smoa_lightning.__main__ import main
from smoa_lightning.records.claim import run_lock
from smoa_lightning.records.tensorboard_tags import name_of, tag_of
from smoa_lightning.training.adapter_folder import load_adapter
from smoa_lightning.training.module import FineTuneModule

from ..conftest import EXPERIMENTS
from ..runs import interrupt_in_last_scoring, only_run
from ..tensorboard_log import columns, hparams


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, piqa_folder: Path) -> Path:
    """One finished run, looked at by several tests."""
    root = tmp_path_factory.mktemp("finished")
    experiments = Path(__file__).parents[2] / "experiments"
    status = main(
        [
            *("fit", "--config", str(experiments / "piqa.yaml")),
            *("--model.backbone.source", "local", "--model.backbone.path", str(tiny_backbone)),
            *("--data.source", "local", "--data.path", str(piqa_folder), "--run.root", str(root)),
            *("--model.adapter.r", "4", "--data.batch_size", "8", "--data.selection_rows", "16"),
            *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
            *("--forgetting.max_documents", "5"),
        ]
    )
    assert status == 0
    return only_run(root)


def test_name_tells_what_the_run_is(finished: Path, tiny_backbone: Path) -> None:
    assert finished.parent.name == f"piqa-smoa_spectral_blocks-r4-K2-seed0-{tiny_backbone.name}"


def test_record_holds_provenance_and_metrics(finished: Path) -> None:
    record = json.loads((finished / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["config"]["model"]["adapter"]["init_args"]["r"] == 4
    assert record["backbone"]["sha256"]["model.safetensors"]
    assert record["backbone"]["attention"] == "sdpa"
    assert record["environment"]["packages"]["peft"]
    metrics = record["metrics"]
    for name in ("acc", "acc_norm", "acc_token"):
        for prefix in ("base", "report", "selection"):
            assert 0 <= metrics[f"{prefix}/{name}"] <= 1
            assert metrics[f"{prefix}/{name}_stderr"] > 0
    assert metrics["rank/effective_mean"] > 1
    assert metrics["cost/tokens_per_second"] > 0
    assert 0 < metrics["cost/step_seconds"] < metrics["cost/train_seconds"]
    assert metrics["parameters/trainable"] < metrics["parameters/total"]


def test_item_scores_agree_with_the_metrics(finished: Path) -> None:
    metrics = json.loads((finished / "record.json").read_text())["metrics"]
    for prefix, name in (("base", "base_items.jsonl"), ("report", "items.jsonl")):
        items = [json.loads(line) for line in (finished / name).read_text().splitlines()]
        assert [item["row"] for item in items] == list(range(24))
        right = [item["prediction_acc"] == item["label"] for item in items]
        assert metrics[f"{prefix}/acc"] == pytest.approx(sum(right) / len(right))
        assert all(item["prediction_acc"] == max((0, 1), key=lambda c: item["log_likelihood"][c]) for item in items)


def test_checkpoints_hold_no_backbone_and_load_with_weights_only(finished: Path, tiny_backbone: Path) -> None:
    backbone = load_file(tiny_backbone / "model.safetensors")
    for name in ("last", "best"):
        state = torch.load(finished / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
        assert state
        assert not any(name.endswith(frozen) for name in state for frozen in backbone)
        assert (finished / "checkpoints" / f"{name}.ckpt").stat().st_size < 300_000


def test_adapter_folder_gives_the_reported_scores(finished: Path) -> None:
    model, tokenizer = load_adapter(finished)
    item = json.loads((finished / "items.jsonl").read_text().splitlines()[0])
    from smoa_lightning.embedded import rows

    row = rows("piqa", "validation")[0]
    for choice, reported in zip(("sol1", "sol2"), item["log_likelihood"], strict=True):
        prompt = tokenizer(f"Question: {row['goal']}\nAnswer:").input_ids
        ids = torch.tensor([tokenizer(f"Question: {row['goal']}\nAnswer: {row[choice]}").input_ids])
        with torch.no_grad():
            logprobs = model(ids).logits.double().log_softmax(-1)
        score = sum(logprobs[0, t - 1, ids[0, t]].item() for t in range(len(prompt), ids.shape[1]))
        assert score == pytest.approx(reported, abs=1e-3)
    assert "load_adapter" in (finished / "adapter" / "best" / "README.md").read_text()
    assert (finished / "adapter" / "last" / "adapter_model.safetensors").is_file()


def test_tensorboard_shows_what_was_measured(finished: Path) -> None:
    events = EventAccumulator(str(finished)).Reload()
    tags = {name_of(tag) for tag in events.Tags()["scalars"]}
    assert {"train/loss", "train/learning_rate", "report/acc", "selection/acc"} <= tags
    assert {"rank/effective_mean", "rank/stable_mean", "cost/tokens_per_second", "cost/peak_memory_mb"} <= tags
    assert any(tag.startswith("rank/effective/") and "q_proj" in tag for tag in tags)
    base, trained = events.Scalars(tag_of("report/acc"))
    record = json.loads((finished / "record.json").read_text())
    assert (base.step, base.value) == (0, pytest.approx(record["metrics"]["base/acc"]))
    assert (trained.step, trained.value) == (18, pytest.approx(record["metrics"]["report/acc"]))
    values, _ = hparams(finished)
    assert values["final/acc"] == pytest.approx(record["metrics"]["report/acc"])
    assert any("predictions" in tag for tag in events.Tags()["tensors"])


def test_tensorboard_shows_the_loss_first_and_curves_only(finished: Path) -> None:
    events = EventAccumulator(str(finished)).Reload()
    tags = sorted(events.Tags()["scalars"], key=lambda tag: tag.replace("/", "\0"))  # as TensorBoard sorts cards
    assert tags[0] == "train/loss"
    names = {name_of(tag) for tag in tags}
    assert not [name for name in names if name.startswith(("final/", "base/", "parameters/"))]
    assert columns(finished)[:5] == ["learning_rate", "rank", "final/acc", "strategy", "task"]
    (results,) = events.Tensors("results/text_summary")
    lines = results.tensor_proto.string_val[0].decode().splitlines()
    metrics = json.loads((finished / "record.json").read_text())["metrics"]
    (accuracy,) = [line for line in lines if line.startswith("| acc |")]
    assert f"{metrics['base/acc']:.4f} ± {metrics['base/acc_stderr']:.4f}" in accuracy
    assert f"| {metrics['report/acc']:.4f} ± {metrics['report/acc_stderr']:.4f} |" in accuracy


def test_a_finished_run_gets_a_new_version_beside_it(finished: Path, tiny_arguments: list[str]) -> None:
    root = finished.parents[1]
    again = [*tiny_arguments, "--run.root", str(root)]
    before = (finished / "record.json").read_text()
    assert main(["fit", *again]) == 0
    assert (finished.parent / "version_1" / "record.json").is_file()
    assert (finished / "record.json").read_text() == before
    one, two = (
        load_file(finished.parent / v / "adapter/last/adapter_model.safetensors") for v in ("version_0", "version_1")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)  # the same command gives the same bits
    shutil.rmtree(finished.parent / "version_1")


def test_run_interrupted_in_its_last_evaluation_ends_with_the_same_record(
    finished: Path, tiny_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_in_last_scoring(tiny_arguments, monkeypatch)
    assert main(["fit", *tiny_arguments]) == 0
    records = [json.loads((f / "record.json").read_text()) for f in (finished, only_run(tmp_path / "runs"))]
    measured = [
        {k: v for k, v in record["metrics"].items() if not k.startswith("cost/")} | {"best": record["best"]}
        for record in records
    ]
    assert measured[0] == measured[1]
    assert records[0]["metrics"]["cost/train_tokens"] == records[1]["metrics"]["cost/train_tokens"]
    assert records[1]["metrics"]["cost/step_seconds"] > 0  # known, though the second command trained no step


def test_costs_are_those_of_the_whole_training_although_an_earlier_state_is_the_best(
    tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--trainer.max_epochs", "3", "--model.optimizer.lr", "1e-12"]  # so the first validation is the best one
    assert main(["fit", *tiny_arguments, *flags]) == 0
    run = only_run(tmp_path / "runs")
    record = json.loads((run / "record.json").read_text())
    states = [torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last")]
    costs = [next(v for k, v in state["callbacks"].items() if "CostMonitor" in k) for state in states]
    steps = states[1]["global_step"]
    assert 3 * record["best"]["step"] == steps == record["best"]["steps"]
    text = f"The best checkpoint is reported: step {steps // 3} of {steps}. 2 later ones have the same score; the first"
    assert text in " ".join(capsys.readouterr().out.split())
    assert record["metrics"]["cost/train_tokens"] == costs[1]["total_tokens"] == 3 * costs[0]["total_tokens"]
    assert record["metrics"]["cost/train_seconds"] == pytest.approx(costs[1]["total_seconds"])
    step_seconds = costs[1]["total_seconds"] / states[1]["global_step"]
    assert record["metrics"]["cost/step_seconds"] == pytest.approx(step_seconds)


def test_starting_from_a_checkpoint_takes_its_weights_and_nothing_else(
    finished: Path, tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(finished / "checkpoints" / "last.ckpt")
    flags = ["--ckpt_path", checkpoint, "--model.optimizer.init_args.lr", "1e-9", "--trainer.max_steps", "2"]
    assert main(["fit", *tiny_arguments, *flags]) == 0
    assert "starting from the weights" in capsys.readouterr().out
    run = only_run(tmp_path / "runs")
    before, after = (load_file(f / "adapter/last/adapter_model.safetensors") for f in (finished, run))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)  # the rate of the flag, not the checkpoint's
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize("method", ["pissa", "full"])
def test_the_rank_of_a_run_from_a_checkpoint_is_that_of_its_whole_update(
    method: str, tiny_arguments: list[str], tmp_path: Path
) -> None:
    flags = [*tiny_arguments, "--config", str(EXPERIMENTS / "adapters" / f"{method}.yaml"), "--trainer.max_steps", "1"]
    rank = flags.index("--model.adapter.r")
    flags = flags if method == "pissa" else [*flags[:rank], *flags[rank + 2 :]]
    flags += ["--rank_monitor.max_layers", "2", "--trainer.log_every_n_steps", "1"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["fit", *flags, "--lr", "0.01", "--run.folder", str(first)]) == 0
    start = ["--ckpt_path", str(first / "checkpoints" / "last.ckpt"), "--lr", "1e-12", "--run.folder", str(second)]
    assert main(["fit", *flags, *start]) == 0
    before, after = (json.loads((run / "record.json").read_text())["metrics"] for run in (first, second))
    assert before["rank/effective_mean"] > 0
    assert after["rank/effective_mean"] == pytest.approx(before["rank/effective_mean"], rel=0.02)


def test_seeds_make_different_runs(tiny_arguments: list[str], tmp_path: Path) -> None:
    for seed in ("0", "1"):
        assert main(["fit", *tiny_arguments, "--seed_everything", seed, "--trainer.max_steps", "1"]) == 0
    runs = sorted((tmp_path / "runs").glob("*/version_0"))
    assert ["seed0" in runs[0].parent.name, "seed1" in runs[1].parent.name] == [True, True]
    one, two = (load_file(run / "adapter/last/adapter_model.safetensors") for run in runs)
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_base_score_is_that_of_the_base_model(finished: Path, tiny_arguments: list[str], tmp_path: Path) -> None:
    """PiSSA moves part of W into its factors, so a disabled adapter would not give the backbone back."""
    rank = tiny_arguments.index("--model.adapter.r")
    flags = [*tiny_arguments[:rank], *tiny_arguments[rank + 2 :], "--model.adapter", "peft.LoraConfig"]
    flags += ["--model.adapter.r", "4", "--model.adapter.init_lora_weights", "pissa", "--trainer.max_steps", "1"]
    assert main(["fit", *flags]) == 0
    assert (only_run(tmp_path / "runs") / "base_items.jsonl").read_text() == (finished / "base_items.jsonl").read_text()


def test_an_evaluation_never_overwrites_a_run(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = (finished / "record.json").read_text()
    checkpoint = str(finished / "checkpoints" / "best.ckpt")
    assert main(["test", "--ckpt_path", checkpoint, "--run.folder", str(finished)]) == 2
    assert "holds a training run" in capsys.readouterr().err
    assert (finished / "record.json").read_text() == before


def test_an_exact_folder_with_another_experiment_is_refused(
    finished: Path, tiny_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    assert main(["fit", *tiny_arguments, "--run.folder", str(finished), "--model.warmup", "3"]) == 2
    error = capsys.readouterr().err
    assert "holds a different experiment" in error
    assert "model.warmup is 3.0 here and 0.06 there" in error
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_a_run_under_way_elsewhere_is_refused(
    tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "held").mkdir()
    with run_lock(tmp_path / "held"):
        # flock is per open file, so a second opening in this process stands for another process
        assert main(["fit", *tiny_arguments, "--run.folder", str(tmp_path / "held")]) == 2
    assert "another process is running in" in capsys.readouterr().err


def test_evaluation_of_a_checkpoint_needs_no_other_settings(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(finished / "checkpoints" / "best.ckpt")
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    reported = json.loads((finished / "record.json").read_text())["metrics"]["report/acc"]
    assert main(["test", "--ckpt_path", checkpoint, "--run.folder", str(tmp_path / "t"), *quiet]) == 0
    assert json.loads((tmp_path / "t" / "evaluation.json").read_text())["metrics"]["report/acc"] == reported
    assert "differs from the checkpoint" not in capsys.readouterr().out
    assert main(["predict", "--ckpt_path", checkpoint, "--run.folder", str(tmp_path / "p"), *quiet]) == 0
    predictions, items = (tmp_path / "p" / "predictions.jsonl").read_text(), (finished / "items.jsonl").read_text()
    for one, two in zip(predictions.splitlines(), items.splitlines(), strict=True):
        assert json.loads(one)["log_likelihood"] == pytest.approx(json.loads(two)["log_likelihood"], abs=1e-4)
    assert main(["validate", "--ckpt_path", checkpoint, "--run.folder", str(tmp_path / "v"), *quiet]) == 0
    assert "selection/acc" in json.loads((tmp_path / "v" / "evaluation.json").read_text())["metrics"]


def test_without_selection_rows_all_are_trained_on_and_the_last_step_is_reported(
    tiny_arguments: list[str], tmp_path: Path
) -> None:
    assert main(["fit", *tiny_arguments, "--data.selection_rows", "0"]) == 0
    run = only_run(tmp_path / "runs")
    record = json.loads((run / "record.json").read_text())
    assert record["data"]["parts"]["train"]["rows"] == 160
    assert record["best"] == {"step": 20, "selection_score": None, "ties": 0, "steps": 20}
    best, last = (load_file(run / "adapter" / which / "adapter_model.safetensors") for which in ("best", "last"))
    assert all(torch.equal(best[name], last[name]) for name in best)
    assert record["metrics"]["rank/effective_mean"] > 1
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    assert main(["validate", "--ckpt_path", checkpoint, "--trainer.accelerator", "cpu"]) == 2


def test_no_file_is_needed(tiny_arguments: list[str], tmp_path: Path) -> None:
    """Flags alone make a run, here full fine-tuning, whose checkpoint carries all that an evaluation needs."""
    flags = tiny_arguments[2:]  # without --config
    rank = flags.index("--model.adapter.r")
    flags = [
        *flags[:rank],
        *flags[rank + 2 :],
        "--model.adapter",
        "null",
        "--trainer.max_steps",
        "1",
        "--trainer.log_every_n_steps",
        "1",
    ]
    assert main(["fit", *flags]) == 0
    checkpoint = only_run(tmp_path / "runs") / "checkpoints" / "last.ckpt"
    assert "full" in str(checkpoint)
    assert main(["test", "--ckpt_path", str(checkpoint), "--trainer.accelerator", "cpu"]) == 0


def test_flags_beat_the_checkpoint_and_another_shape_is_an_error(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["test", "--ckpt_path", str(finished / "checkpoints" / "best.ckpt"), "--trainer.accelerator", "cpu"]
    base += ["--trainer.enable_progress_bar", "false", "--run.folder", str(tmp_path / "t")]
    assert main([*base, "--data.eval_batch_size", "3"]) == 0
    assert "data.eval_batch_size: 16 -> 3" in capsys.readouterr().out
    assert main([*base, "--model.adapter.r", "6"]) == 2
    error = capsys.readouterr().err
    assert "a different adapter shape" in error
    assert main([*base, "--model.adapter", "peft.LoraConfig"]) == 2
    assert "a different strategy" in capsys.readouterr().err


def test_trainer_and_metric_agree_on_ddp_free_scores(finished: Path) -> None:
    """The base model scored by a plain Trainer is what the run recorded as base."""
    record = json.loads((finished / "record.json").read_text())
    from smoa_lightning.backbones.backbone import BackboneConfig
    from smoa_lightning.data.datamodule import TaskDataModule

    module = FineTuneModule(BackboneConfig("local", path=record["config"]["model"]["backbone"]["path"]), frozen=True)
    data = TaskDataModule("piqa", "local", path=record["config"]["data"]["path"], eval_batch_size=5)
    data.tokenizer = module.tokenizer
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    (scores,) = trainer.test(module, datamodule=data, verbose=False)
    assert scores["report/acc"] == pytest.approx(record["metrics"]["base/acc"])


def test_an_evaluation_replaces_no_different_one(finished: Path, tmp_path: Path) -> None:
    """The same evaluation again replaces its files; another one gets a folder of its own."""
    run = tmp_path / "run"
    shutil.copytree(finished, run, symlinks=True)
    test = ["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--trainer.accelerator", "cpu"]
    for flags in ([], ["--data.limit_report_rows", "5"], [], ["--data.limit_report_rows", "5"]):
        assert main([*test, *flags]) == 0
    found = {file.parent.name: json.loads(file.read_text()) for file in run.glob("test*/evaluation.json")}
    limits = {name: record["config"]["data"]["limit_report_rows"] for name, record in found.items()}
    assert limits == {"test": None, "test-v2": 5}

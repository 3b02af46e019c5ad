"""FSDP2: two processes with divided weights train, resume, save and score as one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.embedded import backbone_folder
from smoa_lightning.training.adapter_folder import load_adapter

from .test_processes import LARGER, STRATEGIES, TOLERANCE, arguments, cases, folder_of_rows, losses


def items(file: Path) -> dict[int, list[float]]:
    """Return row -> log-likelihoods of its choices."""
    found = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {item["row"]: item["log_likelihood"] for item in found}


def largest_difference(one: dict[int, list[float]], other: dict[int, list[float]]) -> float:
    assert one.keys() == other.keys()
    return max(abs(a - b) for row in one for a, b in zip(one[row], other[row], strict=True))


def differences(made: dict[str, list[str]], folder: Path) -> dict[str, float]:
    """Return the largest difference of losses of each configuration between one process and two with FSDP2."""
    one, two = losses(made, folder / "one", 1), losses(made, folder / "two", 2, strategy="fsdp2")
    assert {name: len(own) for name, own in two.items()} == {name: len(own) for name, own in one.items()}
    return {name: max(abs(a - b) for a, b in zip(one[name], two[name], strict=True)) for name in made}


@pytest.mark.slow
def test_two_processes_that_divide_the_weights_have_the_losses_of_one(tmp_path: Path) -> None:
    found = differences(cases(["smoa_energy", "full"], backbone_folder(), tmp_path / "rows"), tmp_path)
    assert {name: value for name, value in found.items() if value > TOLERANCE} == {}


@pytest.mark.slow
def test_every_strategy_with_divided_weights(tmp_path: Path) -> None:
    data = ["--data.path", str(folder_of_rows(tmp_path / "odd", "piqa", 145))]
    made = {name: arguments(name, backbone_folder(), data) for name in STRATEGIES}
    found = differences(made, tmp_path)
    for name, value in found.items():
        print(f"{name:20} {value:.1e}")
    assert {name: value for name, value in found.items() if value > LARGER.get(name, TOLERANCE)} == {}


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["smoa_blocks", "full"])
def test_a_killed_run_with_divided_weights_ends_as_one_process(adapter: str, tmp_path: Path) -> None:
    """It is resumed from its one-file checkpoint, and one process loads what it saves, with the same scores."""
    data = ["--data.path", str(folder_of_rows(tmp_path / "odd", "piqa", 45))]
    own = [*arguments(adapter, backbone_folder(), data), "--checkpoint.every_n_steps", "1", "--trainer.max_epochs", "2"]
    own += ["--data.selection_rows", "7", "--run.score_base", "true", "--run.score_report", "true"]
    own += ["--rank_monitor.max_layers", "3"]
    whole = losses({"run": own}, tmp_path / "whole", 1)["run"]
    two = tmp_path / "two"
    first = losses({"run": own}, two, 2, stop_after=8, strategy="fsdp2")["run"]
    assert all(float((two / f"share-{rank}.txt").read_text()) < 0.6 for rank in (0, 1))
    second = losses({"run": own}, two, 2, strategy="fsdp2")["run"]
    assert len(first) == 8
    assert max(abs(a - b) for a, b in zip([*first, *second], whole, strict=True)) < TOLERANCE

    run, alone = two / "run", tmp_path / "whole" / "run"
    records = [json.loads((folder / "record.json").read_text())["metrics"] for folder in (run, alone)]
    ranks = [{name: value for name, value in metrics.items() if "rank/" in name} for metrics in records]
    assert ranks[0] == pytest.approx(ranks[1], rel=1e-3)
    for name in ("items.jsonl", "base_items.jsonl"):
        assert largest_difference(items(run / name), items(alone / name)) < 1e-3
    checkpoint = run / "checkpoints" / "best.ckpt"
    assert main(["test", "--ckpt_path", str(checkpoint), "--run.folder", str(tmp_path / "test")]) == 0
    assert largest_difference(items(tmp_path / "test" / "items.jsonl"), items(run / "items.jsonl")) < 1e-4
    model, _ = load_adapter(run)
    other, _ = load_adapter(alone)
    weights = other.state_dict()
    assert {name: value.shape for name, value in model.state_dict().items()} == {n: w.shape for n, w in weights.items()}


@pytest.mark.slow
def test_processes_with_divided_weights_write_the_replies_of_one(tmp_path: Path) -> None:
    """They generate different numbers of tokens, and virtual tokens need the embeddings before the model runs."""
    rows = folder_of_rows(tmp_path / "rows", "gsm8k", 17)
    own = [*arguments("prompt", backbone_folder(), ["--data.path", str(rows), "--data.task", "gsm8k"])]
    own += ["--run.score_report", "true", "--data.max_new_tokens", "16", "--data.report_split", "validation"]
    found = []
    for processes in (1, 2):
        losses({"run": own}, tmp_path / str(processes), processes, strategy="fsdp2")
        lines = (tmp_path / str(processes) / "run" / "items.jsonl").read_text(encoding="utf-8").splitlines()
        found.append({item["row"]: item["reply"] for item in map(json.loads, lines)})
    assert len({len(reply) for reply in found[0].values()}) > 1
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        (["--model.backbone.quantization", "nf4"], "cannot divide weights in nf4"),
        (["--trainer.strategy.tensor_parallel_size", "2"], "tensor parallelism is not supported"),
        (["--trainer.precision", "16-mixed"], "16-mixed"),
    ],
)
def test_what_cannot_be_divided_is_refused_before_any_work(
    setting: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = folder_of_rows(tmp_path / "rows", "piqa", 16)
    command = ["fit", *arguments("lora", backbone_folder(), ["--data.path", str(rows)]), "--trainer.devices", "2"]
    command += ["--trainer.strategy", "lightning.pytorch.strategies.ModelParallelStrategy", *setting]
    assert main([*command, "--run.root", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()

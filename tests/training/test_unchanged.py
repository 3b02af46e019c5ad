"""A run that is resumed reads what it read at its start, or is refused with what changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from smoa_lightning.__main__ import main
from smoa_lightning.common.checksums import write_sealed
from smoa_lightning.records.record import read_record
from smoa_lightning.training import unchanged

from ..runs import Killed, die_at_step, only_run


def flip_label(file: Path) -> None:
    lines = file.read_text().splitlines()
    row = json.loads(lines[3])
    lines[3] = json.dumps(row | {"label": 1 - row["label"]})
    file.write_text("\n".join(lines) + "\n")


def drop_row(file: Path) -> None:
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")


def change_weight(file: Path) -> None:
    weights = load_file(file)
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.01
    save_file(weights, file, metadata={"format": "pt"})


def change_bin(file: Path) -> None:
    weights = torch.load(file, weights_only=True)
    weights["model.norm.weight"] *= 1.01
    torch.save(weights, file)


def change_config(file: Path) -> None:
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))


@pytest.fixture
def places(tiny_backbone: Path, piqa_folder: Path, tmp_path: Path) -> Path:
    """Copies of backbone and rows that a test may change."""
    shutil.copytree(tiny_backbone, tmp_path / "model")
    shutil.copytree(piqa_folder, tmp_path / "rows")
    return tmp_path


def to_bin(model: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


LORA = ["--model.adapter", "null", "--model.adapter", "peft.LoraConfig"]


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("rows/train.jsonl", flip_label, "piqa/train"),
        ("rows/train.jsonl", drop_row, "piqa/train"),
        ("rows/validation.jsonl", flip_label, "piqa/validation"),
        ("model/model.safetensors", change_weight, "model.safetensors"),
        ("model/pytorch_model.bin", change_bin, "pytorch_model.bin"),
        ("model/config.json", change_config, "config.json"),
    ],
)
def test_a_change_between_start_and_resume_is_refused_by_name(
    file: str,
    change: Callable[[Path], None],
    says: str,
    places: Path,
    tiny_arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if file.endswith(".bin"):
        to_bin(places / "model")
    arguments = ["fit", *tiny_arguments, "--model.backbone.path", str(places / "model"), *LORA]
    arguments += ["--data.path", str(places / "rows"), "--checkpoint.every_n_steps", "2", "--model.adapter.r", "4"]
    with monkeypatch.context() as patch:
        die_at_step(patch, 4)
        with pytest.raises(Killed):
            main(arguments)
    run = only_run(places / "runs")
    before = (places / file).read_bytes()
    change(places / file)
    capsys.readouterr()
    for _ in range(2):  # the refusal does not make the changed file the right one
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert says in error
        assert "restore them, or move the folder away to start again" in error
        assert "Traceback" not in error
    (places / file).write_bytes(before)
    assert main(arguments) == 0
    assert only_run(places / "runs") == run


def test_a_run_of_an_earlier_version_lists_no_rows_and_goes_on(
    tiny_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["fit", *tiny_arguments, "--checkpoint.every_n_steps", "2"]
    with monkeypatch.context() as patch:
        die_at_step(patch, 4)
        with pytest.raises(Killed):
            main(arguments)
    run = only_run(tmp_path / "runs")
    record = read_record(run)
    assert record is not None
    assert record["data"].pop("rows").keys() == {"piqa/train", "piqa/validation"}
    del record["backbone"]["files"], record["files"]
    write_sealed(run / "record.json", record)
    assert main(arguments) == 0
    assert only_run(tmp_path / "runs") == run


@pytest.mark.parametrize("moved", ["backbone", "data"])
def test_a_branch_of_the_hub_that_moves_is_named_with_both_commits(
    moved: str,
    tiny_arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = {"backbone": "b1", "data": "d1"}

    def from_the_hub(backbone: object, data: object, commits: bool = True) -> dict[str, object]:
        facts = {"backbone": ["hub", now["backbone"] if commits else "main"], "data": "hub"}
        return {**facts, "commits": {"piqa": now["data"]}} if commits else facts

    monkeypatch.setattr(unchanged, "sources", from_the_hub)
    arguments = ["fit", *tiny_arguments, "--checkpoint.every_n_steps", "2"]
    with monkeypatch.context() as patch:
        die_at_step(patch, 4)
        with pytest.raises(Killed):
            main(arguments)
    run, before = only_run(tmp_path / "runs"), now[moved]
    now[moved] = "new"
    capsys.readouterr()
    assert main(arguments) == 2
    name = "piqa" if moved == "data" else moved
    assert f"the unfinished run in {run} began ({name}: {before} became new)" in capsys.readouterr().err
    now[moved] = before
    assert main(arguments) == 0
    now[moved] = "new"
    assert main(arguments) == 0  # a new version after a finished one
    assert len(list(run.parent.iterdir())) == 2

"""A run that is resumed reads what it read at its start, or is refused with what changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from smoa_lightning import embedded
from smoa_lightning.__main__ import main
from smoa_lightning.common.checksums import sha256, write_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.records.record import read_record
from smoa_lightning.training import unchanged
from smoa_lightning.training.unchanged import check_rows, row_digests, text_digests

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
        pytest.param("rows/train.jsonl", drop_row, "piqa/train", marks=pytest.mark.slow),
        ("rows/validation.jsonl", flip_label, "piqa/validation"),
        ("model/model.safetensors", change_weight, "model.safetensors"),
        ("model/pytorch_model.bin", change_bin, "pytorch_model.bin"),
        ("model/config.json", change_config, "config.json"),
        ("general.txt", lambda file: file.write_text("Another text."), "the file of forgetting.text changed"),
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
    (places / "general.txt").write_text("A text.\n\nAnd a second one.")
    arguments += ["--forgetting.text", str(places / "general.txt")] if file == "general.txt" else []
    arguments += ["--data.path", str(places / "rows"), "--checkpoint.every_n_steps", "2", "--model.adapter.r", "4"]
    arguments += ["--trainer.max_steps", "5"]
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


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shots", [0, 2])
def test_training_rows_of_reported_tasks_count_if_they_are_in_prompts(shots: int, train: bool, tmp_path: Path) -> None:
    for task in ("piqa", "boolq"):
        (tmp_path / task).mkdir()
        for split in ("train", "validation"):
            lines = [json.dumps(row) for row in embedded.rows(task, split)[:24]]
            (tmp_path / task / f"{split}.jsonl").write_text("\n".join(lines) + "\n")

    def digests() -> dict[str, str]:
        data = TaskDataModule("piqa", report_tasks=["piqa", "boolq"], source="local", path=str(tmp_path),
                              selection_rows=8, num_fewshot=shots)  # fmt: skip
        data.resolve()
        return row_digests(data, train)

    before = digests()
    drop_row(tmp_path / "boolq" / "train.jsonl")
    changed = [name for name, digest in digests().items() if digest != before[name]]
    assert changed == (["boolq/train"] if shots else [])
    assert ("piqa/train" in before) == (train or shots > 0)
    if shots:
        with pytest.raises(UserError, match=r"^the boolq/train rows in a place changed after"):
            check_rows(tmp_path, before, digests(), "a place")


def test_rows_and_texts_that_changed_are_one_sentence(tmp_path: Path) -> None:
    before = {"piqa/train": "a", "piqa/validation": "b", "forgetting.text": "c"}
    with pytest.raises(UserError, match=r"^the piqa/train rows in p and the file of forgetting\.text changed after"):
        check_rows(tmp_path, before, {"piqa/validation": "b"}, "p")
    file = tmp_path / "a.txt"
    file.write_text("x")
    assert text_digests({"forgetting": {"text": str(file)}}) == {"forgetting.text": sha256(file)}
    for nothing in ({}, {"forgetting": None}, {"forgetting": {"text": None}}, {"forgetting": {"text": "embedded"}}):
        assert text_digests(nothing) == {}


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

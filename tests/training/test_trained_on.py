"""A checkpoint or an adapter is used on the backbone that it was trained on, wherever that is, or with a flag."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from smoa_lightning.__main__ import main
from smoa_lightning.common.checksums import sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import ADAPTER_FACTS, read_record
from smoa_lightning.training.adapter_folder import load_adapter
from smoa_lightning.training.run_checkpoints import current
from smoa_lightning.training.trained_on import changes, check_trained_on

from ..conftest import EXPERIMENTS
from ..runs import only_run
from .test_unchanged import change_config, change_weight

FLAG = "--allow_other_backbone"
LORA = ["--model.adapter", "null", "--model.adapter", "peft.LoraConfig", "--model.adapter.r", "2"]
FULL = ["--model.adapter", "null"]


def fit(root: Path, piqa_folder: Path, method: list[str]) -> Path:
    arguments = [
        *("fit", "--config", str(EXPERIMENTS / "piqa.yaml"), "--model.backbone.source", "local"),
        *("--model.backbone.path", str(root / "model"), "--data.source", "local", "--data.path", str(piqa_folder)),
        *("--trainer.max_steps", "2", "--data.selection_rows", "8", "--data.batch_size", "8"),
        *("--data.limit_report_rows", "8", "--run.score_base", "false", "--run.score_report", "false"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--run.root", str(root / "runs")),
        *("--trainer.log_every_n_steps", "1", "--rank_monitor.max_layers", "0", "--forgetting.text", "null"),
    ]
    assert main([*arguments, *method]) == 0
    return only_run(root / "runs")


@pytest.fixture(scope="module", params=[LORA, FULL], ids=["lora", "full"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, piqa_folder: Path
) -> Path:
    """A folder with a model and a run on it; tests put the model back as it was."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(tiny_backbone, root / "model")
    fit(root, piqa_folder, request.param)
    return root


def commands(run: Path, tmp_path: Path) -> dict[str, list[str]]:
    """Each command that uses a trained run."""
    used = ["--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--data.limit_report_rows", "4"]
    used += ["--forgetting.text", "null", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    return {
        "generate": ["generate", str(run), "--prompt", "x", "--max_new_tokens", "1"],
        "rank": ["rank", str(run), "--layers", "1", "--output", str(tmp_path)],
        **{name: [name, *used, "--run.folder", str(tmp_path / name)] for name in ("test", "validate", "predict")},
    }


def is_full(run: Path) -> bool:
    return not (run / "adapter" / "best" / "adapter_config.json").exists()


def test_changed_weights_are_refused_by_every_command(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = only_run(made / "runs"), made / "model" / "model.safetensors"
    before = file.read_bytes()
    change_weight(file)
    try:
        for name, command in commands(run, tmp_path).items():
            capsys.readouterr()
            status = main(command)
            error = capsys.readouterr().err
            if is_full(run) and name != "rank":  # a fully fine-tuned model has its own weights
                assert status == 0, name
                continue
            assert status == 2, name
            assert "was trained on a different backbone than" in error, name
            assert "(model.safetensors changed): restore it, name the right one with" in error, name
            assert not (tmp_path / name).exists()
            if name in ("generate", "rank", "test"):
                assert main([*command, FLAG]) == 0, name
                assert "was trained on a different backbone: model.safetensors changed" in capsys.readouterr().err
        assert is_full(run) or main(commands(run, tmp_path)["test"]) == 2  # the flag holds for one command
        if not is_full(run):
            with pytest.raises(UserError, match="different backbone"):
                load_adapter(run, str(made / "model"))
            load_adapter(run, AutoModelForCausalLM.from_pretrained(made / "model"))  # on purpose
    finally:
        file.write_bytes(before)
    assert main(commands(run, tmp_path)["generate"]) == 0


def test_changed_settings_are_refused_by_every_command(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = only_run(made / "runs"), made / "model" / "config.json"
    before = file.read_bytes()
    change_config(file)
    try:
        for name, command in commands(run, tmp_path).items():
            capsys.readouterr()
            assert main(command) == 2, name
            assert "(config.json changed)" in capsys.readouterr().err, name
    finally:
        file.write_bytes(before)


def test_a_copy_of_the_backbone_is_the_same_backbone(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = only_run(made / "runs")
    shutil.copytree(made / "model", tmp_path / "copy")
    command = [*commands(run, tmp_path)["test"], "--model.backbone.path", str(tmp_path / "copy")]
    assert main(command) == 0
    load_adapter(run, str(tmp_path / "copy"))
    change_weight(tmp_path / "copy" / "model.safetensors")
    capsys.readouterr()
    assert main(command) == (0 if is_full(run) else 2)
    assert ("different backbone" in capsys.readouterr().err) != is_full(run)


def test_a_run_does_not_start_from_weights_on_another_backbone(
    made: Path, tmp_path: Path, piqa_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = only_run(made / "runs")
    if is_full(run):
        pytest.skip("a fully fine-tuned model has its own weights")
    shutil.copytree(made / "model", tmp_path / "model")
    change_weight(tmp_path / "model" / "model.safetensors")
    start = [*LORA, "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
    with pytest.raises(AssertionError):
        fit(tmp_path, piqa_folder, start)
    assert "different backbone" in capsys.readouterr().err
    fit(tmp_path, piqa_folder, [*start, FLAG])


def test_checkpoints_of_earlier_versions_are_compared_with_the_record_of_their_run(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(only_run(made / "runs"), run, symlinks=True)
    point = current(run)
    assert point is not None
    saved = torch.load(point / "best.ckpt", weights_only=True)
    assert saved.pop("backbone")["sha256"] == read_record(run)["backbone"]["sha256"]  # type: ignore[index]
    torch.save(saved, tmp_path / "old.ckpt")
    shutil.copytree(made / "model", tmp_path / "copy")
    change_config(tmp_path / "copy" / "config.json")
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    shutil.move(tmp_path / "old.ckpt", run / "checkpoints" / "best.ckpt")
    command = [*commands(run, tmp_path)["test"], "--model.backbone.path", str(tmp_path / "copy")]
    assert main(command) == 2
    assert "(config.json changed)" in capsys.readouterr().err


def test_adapters_of_earlier_versions_have_no_checksums(made: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(only_run(made / "runs") / "adapter" / "best", adapter)
    facts: dict[str, Any] = json.loads((adapter / ADAPTER_FACTS).read_text())
    del facts["location"]["sha256"], facts["location"]["files"]
    (adapter / ADAPTER_FACTS).write_text(json.dumps(sealed(facts)))
    load_adapter(adapter)


def place(source: str, **facts: Any) -> dict[str, Any]:
    return {"source": source, "name": "x", **facts}


HASHES = {"sha256": {"model.safetensors": "a"}, "files": {"config.json": "b"}}


@pytest.mark.parametrize(
    ("earlier", "now", "found"),
    [
        (place("hub", commit="a"), place("hub", commit="a"), []),
        (place("hub", commit="a"), place("hub", commit="b"), ["commit a became b"]),
        (place("hub", commit=None), place("hub", commit="b"), []),
        (place("hub", commit="a"), place("embedded", **HASHES), ["source hub became embedded"]),
        (place("embedded", **HASHES), place("hub", commit="a"), ["source embedded became hub"]),
        (place("embedded", **HASHES), place("local", **HASHES), []),
        (place("local", **HASHES), place("local", sha256={"b.safetensors": "a"}, files=HASHES["files"]),
         ["model.safetensors changed", "b.safetensors changed"]),
        (place("local", sha256=HASHES["sha256"]), place("local", **HASHES), []),
        ({}, place("local", **HASHES), []),
    ],
)  # fmt: skip
def test_what_counts_as_a_change(earlier: dict[str, Any], now: dict[str, Any], found: list[str]) -> None:
    assert changes(earlier, now) == found


def test_a_folder_and_a_repository_cannot_be_compared(shown_notes: None, capsys: pytest.CaptureFixture[str]) -> None:
    check_trained_on("the adapter", place("hub", commit="a"), place("local", **HASHES))
    assert "the adapter and 'x' cannot be compared" in capsys.readouterr().err

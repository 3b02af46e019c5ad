"""Bad input gets one clear sentence and a status that is not zero; nothing is written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smoa_lightning.__main__ import COMMANDS, main
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration import expand_bases

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


BAD = {
    "unknown task": (["--data.task", "pika"], ["pika", "piqa"]),
    "unknown source": (["--data.source", "web"], ["web", "hub", "local", "embedded"]),
    "unknown backbone source": (["--model.backbone.source", "web"], ["web", "hub", "local", "embedded"]),
    "unknown key": (["--model.adaptor", "null"], ["model.adaptor", "model.adapter"]),
    "unknown adapter key": (["--model.adapter.rank", "4"], ["rank"]),
    "unknown strategy": (["--model.adapter", "peft.LorraConfig"], ["LorraConfig", "LoraConfig"]),
    "unknown partition": (["--model.adapter.partition", "blocks"], ["blocks", "spectral_blocks"]),
    "more subspaces than fit": (["--model.adapter.num_subspaces", "17", "--model.adapter.r", "34"], ["17", "16"]),
    "branch ranks that do not add up": (["--model.adapter.branch_ranks", "[1, 2]"], ["branch_ranks", "3", "4"]),
    "no such module": (["--model.adapter.target_modules", "[q_prog]"], ["q_prog", "q_proj"]),
    "missing model folder": (["--model.backbone.path", "/nowhere"], ["model.backbone.path", "/nowhere"]),
    "missing data": (["--data.path", "/nowhere"], ["/nowhere"]),
    "frozen with an adapter": (["--model.frozen", "true"], ["model.frozen", "model.adapter"]),
    "missing config": (["--config", str(EXPERIMENTS / "pika.yaml")], ["pika.yaml", "piqa.yaml"]),
    "hub that does not answer": (["--data.source", "hub"], ["hub"]),
    "no GPU": (["--trainer.accelerator", "gpu"], ["gpu"]),
    "no step": (["--trainer.max_epochs", "one"], ["trainer.max_epochs", "one"]),
    "missing checkpoint": (["--ckpt_path", "/nowhere.ckpt"], ["/nowhere.ckpt"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(
    case: str, tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, words = BAD[case]
    assert main(["fit", *tiny_arguments, *flags]) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("smoa_lightning: ")]
    assert len(lines) == 1, error
    assert len(lines[0]) < 700
    for word in words:
        assert word in lines[0]
    records = [json.loads(p.read_text()) for p in tmp_path.glob("runs/*/*/record.json")]
    assert all(record["status"] == "failed" for record in records)
    assert not list(tmp_path.glob("runs/**/*.tmp"))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"goal": "g", "sol1": "a", "label": 0}, ["sol2", "row 3"]),
        ({"goal": "g", "sol1": "a", "sol2": "b", "label": 2}, ["label", "row 3"]),
    ],
)
def test_bad_row_names_file_row_and_field(
    row: dict[str, object],
    words: list[str],
    tiny_arguments: list[str],
    piqa_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    lines = (piqa_folder / "train.jsonl").read_text().splitlines()
    (folder / "train.jsonl").write_text("\n".join([*lines[:2], json.dumps(row), *lines[2:]]))
    (folder / "validation.jsonl").write_text((piqa_folder / "validation.jsonl").read_text())
    assert main(["fit", *tiny_arguments, "--data.path", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "train.jsonl" in error
    for word in words:
        assert word in error


@pytest.mark.parametrize("damage", ["no tokenizer", "no weights", "empty weights", "broken config"])
def test_damaged_model_folder_is_one_sentence(
    damage: str, tiny_arguments: list[str], tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_backbone, folder)
    if damage == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    elif damage == "no weights":
        (folder / "model.safetensors").unlink()
    elif damage == "empty weights":
        (folder / "model.safetensors").write_bytes(b"")
    else:
        (folder / "config.json").write_text("{")
    assert main(["fit", *tiny_arguments, "--model.backbone.path", str(folder)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("smoa_lightning: ")]
    assert str(folder) in line


def test_missing_start_checkpoint_leaves_no_run(tiny_arguments: list[str], tmp_path: Path) -> None:
    assert main(["fit", *tiny_arguments, "--ckpt_path", "/nowhere.ckpt"]) == 2
    assert not (tmp_path / "runs").exists()


def test_no_command_shows_the_overview_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "fit" in capsys.readouterr().out
    assert main(["--help"]) == 0


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fitt"]) == 2
    assert capsys.readouterr().err == "smoa_lightning: unknown command 'fitt'; did you mean fit?\n"


def test_process_exit_status_and_stream() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "smoa_lightning", "fit", "--config", "nowhere.yaml"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("smoa_lightning: --config: the file 'nowhere.yaml' does not exist")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_into_a_closed_pipe_is_no_traceback(command: str) -> None:
    """As in ``fit --help | head -1``: the reader takes one line and goes."""
    words = [sys.executable, "-u", "-m", "smoa_lightning", *command.split(), "--help"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (0, 141)  # a short help was written before the reader went


def test_bases_come_before_the_files_that_name_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x: 1\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\ny: 1\n")
    (tmp_path / "c.yaml").write_text("base: b.yaml\n")
    expanded = expand_bases(
        ["fit", "--config", str(tmp_path / "c.yaml"), f"--config={tmp_path / 'b.yaml'}", "--z", "1"]
    )
    names = [Path(argument).name for argument in expanded if argument.endswith(".yaml")]
    assert names == ["a.yaml", "b.yaml", "c.yaml", "b.yaml"]
    assert expanded[-2:] == ["--z", "1"]
    (tmp_path / "a.yaml").write_text("x: [1\n")
    with pytest.raises(UserError, match=r"a\.yaml is not valid YAML"):
        expand_bases(["fit", "--config", str(tmp_path / "b.yaml")])


def test_a_run_is_repeated_from_its_own_file(tiny_arguments: list[str], tmp_path: Path) -> None:
    """The file under ``base:`` is part of what config.yaml says, and is not beside it."""
    assert main(["fit", *tiny_arguments, "--trainer.max_steps", "1"]) == 0
    (first,) = (tmp_path / "runs").glob("*/*/config.yaml")
    assert main(["fit", "--config", str(first)]) == 0
    signatures = {json.loads(p.read_text())["signature"] for p in (tmp_path / "runs").glob("*/*/record.json")}
    assert len(list((tmp_path / "runs").glob("*/*"))) == 2
    assert len(signatures) == 1


def test_params_counts_without_data(
    tiny_arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """r (d_in + d_out) / K for each layer: width 32, feed-forward 48, 2 key-value heads of 8."""
    assert main(["params", *tiny_arguments, "--data.path", "/nowhere"]) == 0
    out = capsys.readouterr().out
    per_layer = [4 * (32 + 32) // 2, 4 * (32 + 16) // 2, 4 * (32 + 16) // 2, 4 * (32 + 48) // 2, 4 * (32 + 48) // 2]
    assert f"trainable parameters: {2 * sum(per_layer):,}" in out
    assert "q_proj" in out
    assert "rank bound" in out
    assert not (tmp_path / "runs").exists()


def test_params_size_is_that_of_the_written_file(
    tiny_arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["params", *tiny_arguments]) == 0
    told = int(capsys.readouterr().out.split("adapter file: about ")[1].split()[0].replace(",", ""))
    assert main(["fit", *tiny_arguments, "--trainer.max_steps", "1"]) == 0
    (file,) = (tmp_path / "runs").glob("*/*/adapter/last/adapter_model.safetensors")
    assert abs(file.stat().st_size - told) <= 256  # offsets in the header have more or fewer digits


def test_strategies_that_begin_with_a_word_are_its_nearest_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "smoa"]) == 2
    assert "there is no strategy 'smoa'; the nearest are smoa_blocks" in capsys.readouterr().err
    assert main(["methods", "loar"]) == 2
    assert "lora" in capsys.readouterr().err

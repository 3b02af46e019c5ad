"""``params`` on the command line: JSON, lengths, LLaMA-3-8B, and the size of a run on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from smoa_lightning.__main__ import main
from tests.conftest import EXPERIMENTS

FILES = ["--config", str(EXPERIMENTS / "piqa.yaml"), "--config", str(EXPERIMENTS / "adapters" / "lora.yaml")]
LLAMA_3_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    tie_word_embeddings=False,
)


def on(folder: Path) -> list[str]:
    return ["--model.backbone.source", "local", "--model.backbone.path", str(folder)]


def facts(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["params", *arguments, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_json_is_all_of_the_standard_output(tiny_backbone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = facts([*FILES, *on(tiny_backbone), "--length", "64"], capsys)
    assert shown["trainable_parameters"] == sum(
        kind["trainable_parameters"] * kind["count"] for kind in shown["layers"]
    )
    memory = shown["memory"]
    assert (memory["rows"], memory["length"], memory["targets"], memory["optimizer"]) == (32, 64, 63, "AdamW")
    for name in ("without_checkpointing", "with_checkpointing"):
        assert memory[name]["total"] == sum(memory[name]["peak"].values())
    assert memory["with_checkpointing"]["total"] < memory["without_checkpointing"]["total"]


def test_the_table_and_its_flags(tiny_backbone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", *FILES, *on(tiny_backbone), "--length=32", "--targets", "4"]) == 0
    shown = capsys.readouterr().out
    assert "memory of a training step, 32 rows of 32 tokens with 4 targets each (data.batch_size, data.max_" in shown
    assert "optimizer (AdamW)" in shown
    assert "every token counts as a target" not in shown
    assert main(["params", *FILES, *on(tiny_backbone), "--no_memory"]) == 0
    assert "memory" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--length", "0"], "params: --length is '0', but takes a number of tokens of at least 1"),
        (["--targets"], "params: --targets is '', but takes a number of tokens of at least 1"),
        (["--length", "1"], "params: --length is 1, but a row has at least 2 tokens"),
        (["--length", "9000"], "params: --length is 9000, but the model takes at most 2048 tokens"),
        (["--length", "8", "--targets", "8"], "params: --targets is 8, but a row of 8 tokens has at most 7 targets"),
    ],
)
def test_wrong_lengths_are_one_sentence(
    flags: list[str], sentence: str, tiny_backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["params", *FILES, *on(tiny_backbone), *flags]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_pissa_needs_no_weights(tiny_backbone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [*FILES, "--config", str(EXPERIMENTS / "adapters" / "pissa.yaml")]
    assert main(["params", *files, *on(tiny_backbone), "--no_memory"]) == 0
    assert "trainable parameters: " in capsys.readouterr().out


def test_the_folder_of_a_run_has_the_estimated_size(
    tiny_backbone: Path, tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--config", FILES[-1], "--model.adapter.r", "512"]  # large enough for settings and cards to be small
    disk = facts([*tiny_arguments, *size, "--length", "8"], capsys)["disk"]
    short = ["--trainer.max_steps", "1", "--trainer.limit_test_batches", "1", "--run.score_base", "false"]
    assert main(["fit", *tiny_arguments, *size, *short]) == 0
    (run,) = (tmp_path / "runs").glob("*/version_0")
    folder = (run / "checkpoints" / "current").resolve()  # adapter/ has hard links to its adapters
    written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert disk["run_at_end"] == pytest.approx(written, rel=0.05)
    assert disk["checkpoint"] == pytest.approx((run / "checkpoints" / "last.ckpt").stat().st_size, rel=0.02)


def test_llama_3_8b_from_its_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LLAMA_3_8B.save_pretrained(tmp_path)
    shown = facts([*FILES, *on(tmp_path), "--no_memory"], capsys)
    assert shown["backbone"]["parameters"] == 8_030_261_248  # as published
    r, count = 32, 32
    shapes = [(4096, 4096), (1024, 4096), (1024, 4096), (14336, 4096), (4096, 14336)]  # q, k, v, up, down
    assert shown["trainable_parameters"] == count * r * sum(sum(shape) for shape in shapes)
    assert shown["memory"] is None


@pytest.mark.slow
def test_memory_of_llama_3_8b(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LLAMA_3_8B.save_pretrained(tmp_path)
    dtype = ["--model.backbone.dtype", "bfloat16", "--data.batch_size", "4"]
    memory = facts([*FILES, *on(tmp_path), *dtype, "--length", "256"], capsys)["memory"]["with_checkpointing"]
    assert memory["largest"]["weights"] == pytest.approx(2 * 8_030_261_248 + 4 * 56_623_104, rel=0.02)
    assert memory["total"] < 24e9

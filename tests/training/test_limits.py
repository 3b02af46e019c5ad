"""Everything that a run feeds a model fits into its positions less the virtual tokens, and into its embedding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from smoa_lightning.__main__ import main
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.common.errors import UserError
from smoa_lightning.training.generate import generate
from smoa_lightning.training.module import FineTuneModule
from tests.conftest import EXPERIMENTS
from tests.runs import only_run

POSITIONS, VIRTUAL = 64, 20
PROMPTS = {"prompt": PromptTuningConfig, "prefix": PrefixTuningConfig, "ptuning": PromptEncoderConfig}


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A model with learned positions: one token too many is an IndexError."""
    folder = tmp_path_factory.mktemp("short")
    torch.manual_seed(0)
    small = {"n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
    GPT2LMHeadModel(GPT2Config(vocab_size=259, n_positions=POSITIONS, **small)).save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def long_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for split in ("train", "validation"):
        rows = [
            {"goal": f"{n} water " * 20, "sol1": "a cup", "sol2": "door", "label": n % 2, "answer": "a cup"}
            for n in range(20)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def fit(folder: Path, rows: Path, root: Path, *flags: str) -> int:
    return main(
        [
            *("fit", "--config", str(EXPERIMENTS / "piqa.yaml"), "--model.backbone.source", "local"),
            *("--model.backbone.path", str(folder), "--data.source", "local", "--data.path", str(rows)),
            *("--trainer.max_steps", "2", "--trainer.log_every_n_steps", "1", "--trainer.accelerator", "cpu"),
            *("--trainer.enable_progress_bar", "false"),
            *("--data.selection_rows", "4", "--data.batch_size", "8", "--forgetting.max_documents", "3"),
            *("--run.root", str(root), "--rank_monitor.max_layers", "0", *flags),
        ]
    )


@pytest.mark.parametrize(
    ("kind", "protocol"), [("prompt", "generation"), ("prefix", "generation"), ("ptuning", "likelihood")]
)
def test_virtual_tokens_count_against_the_positions(
    kind: str, protocol: str, short: Path, long_rows: Path, tmp_path: Path
) -> None:
    flags = ["--data.protocol", protocol, "--data.num_fewshot", "2"]
    flags += ["--data.max_new_tokens", "8"] if protocol == "generation" else []
    flags += [f"--model.adapter=peft.{PROMPTS[kind].__name__}", f"--model.adapter.num_virtual_tokens={VIRTUAL}"]
    assert fit(short, long_rows, tmp_path, *flags) == 0
    record = json.loads((only_run(tmp_path) / "record.json").read_text())
    room = POSITIONS - VIRTUAL
    assert record["data"]["max_length"] == room
    parts = record["data"]["parts"]
    assert parts["train"]["length_max"] == room
    assert max(parts[part]["length_max"] for part in ("train", "selection", "report")) <= room


@pytest.fixture(scope="module")
def prompted(short: Path, long_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prompted")
    flags = ["--model.adapter=peft.PromptTuningConfig", f"--model.adapter.num_virtual_tokens={VIRTUAL}"]
    assert fit(short, long_rows, root, *flags, "--run.score_base", "false", "--run.score_report", "false") == 0
    return only_run(root)


def test_generate_refuses_a_prompt_that_does_not_fit(prompted: Path) -> None:
    assert len(generate(prompted, ["a" * 40], max_new_tokens=4)) == 1
    with pytest.raises(UserError, match=r"prompt 2 has 41 tokens, .* of 44 tokens \(64 positions less 20 virtual "
                                        r"tokens\): ask for at most 3 new tokens"):  # fmt: skip
        generate(prompted, ["a", "a" * 41], max_new_tokens=4)
    with pytest.raises(UserError, match="shorten the prompt"):
        generate(prompted, ["a" * 50], max_new_tokens=4)


@pytest.mark.parametrize("kind", PROMPTS)
def test_virtual_tokens_that_leave_no_room_are_refused(kind: str, short: Path) -> None:
    config: Any = PROMPTS[kind](num_virtual_tokens=63)
    module = FineTuneModule(BackboneConfig("local", path=str(short)), config)
    with pytest.raises(UserError, match=r"num_virtual_tokens is 63, .* 64 positions.*at most 62"):
        _ = module.limits


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PromptTuningConfig(num_virtual_tokens=-3), "num_virtual_tokens is -3, but must be at least 1"),
        (PrefixTuningConfig(num_virtual_tokens=0), "num_virtual_tokens is 0, but must be at least 1"),
        (PromptEncoderConfig(num_virtual_tokens=2, encoder_hidden_size=0), "encoder_hidden_size is 0, but must be at"),
    ],
)
def test_sizes_below_one_are_refused_with_their_key(config: Any, message: str, short: Path) -> None:
    backbone = BackboneConfig("local", path=str(short))
    with pytest.raises(UserError, match=f"model.adapter.{message}"):
        FineTuneModule(backbone, config)
    with pytest.raises(UserError, match=f"model.prompt.{message}"):
        FineTuneModule(backbone, LoraConfig(), prompt=config)


def test_the_prompt_of_a_pair_that_leaves_no_room_has_its_own_key(short: Path) -> None:
    module = FineTuneModule(
        BackboneConfig("local", path=str(short)), LoraConfig(), prompt=PromptTuningConfig(num_virtual_tokens=63)
    )
    with pytest.raises(UserError, match=r"model\.prompt\.num_virtual_tokens is 63, .* 64 positions.*at most 62"):
        _ = module.limits


def test_replies_that_leave_no_room_name_the_virtual_tokens(
    short: Path, long_rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model.adapter=peft.PromptTuningConfig", f"--model.adapter.num_virtual_tokens={VIRTUAL}"]
    assert fit(short, long_rows, tmp_path, *flags, "--data.protocol", "generation", "--data.max_new_tokens", "44") == 2
    assert "64 positions less 20 virtual tokens); the largest valid value is 43" in capsys.readouterr().err


# ---- tokens that the embedding lacks


@pytest.fixture(scope="module")
def extended(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with a tokenizer of more tokens: one that pads, and one of texts."""
    folder = tmp_path_factory.mktemp("extended") / "model"
    shutil.copytree(short, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.add_tokens(["<|extra|>"])
    tokenizer.save_pretrained(folder)
    return folder


def test_a_pad_token_beyond_the_embedding_is_no_error(extended: Path, long_rows: Path, tmp_path: Path) -> None:
    flags = ["--model.adapter", "peft.LoraConfig", "--data.pad_multiple", "16", "--data.protocol", "generation"]
    assert fit(extended, long_rows, tmp_path, *flags, "--data.max_new_tokens", "4") == 0
    run = only_run(tmp_path)
    assert json.loads((run / "record.json").read_text())["data"]["max_length"] == POSITIONS  # no virtual tokens
    assert len(generate(run, ["a", "abc"], max_new_tokens=2)) == 2
    with pytest.raises(UserError, match=r"prompt 1: the token '<\|extra\|>'"):
        generate(run, ["a <|extra|>"], max_new_tokens=2)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_row_with_a_token_beyond_the_embedding_is_refused_before_scores(
    split: str, extended: Path, long_rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows"
    shutil.copytree(long_rows, rows)
    lines = (rows / f"{split}.jsonl").read_text().splitlines()
    lines[6] = lines[6].replace("a cup", "a <|extra|>")
    (rows / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    flags = ["--model.adapter", "peft.LoraConfig", "--data.selection_rows", "0", "--run.score_base", "false"]
    assert fit(extended, rows, tmp_path / "runs", *flags) == 2
    err = capsys.readouterr().err
    assert f"piqa {split}, row 7: the token '<|extra|>' has id 260, but the embedding of the model has only 259" in err
    assert not list((tmp_path / "runs").glob("*/*/checkpoints/*.ckpt"))
    shutil.copy(long_rows / f"{split}.jsonl", rows)  # the refused run goes on with the remedy
    assert fit(extended, rows, tmp_path / "runs", *flags) == 0
    assert only_run(tmp_path / "runs").name == "version_0"


def test_a_document_with_such_a_token_is_refused(
    extended: Path, long_rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("One.\n\nTwo <|extra|> three.\n")
    flags = ["--model.adapter", "peft.LoraConfig", "--forgetting.text", str(tmp_path / "text.txt")]
    assert fit(extended, long_rows, tmp_path / "runs", *flags) == 2
    assert "forgetting.text, document 2: the token '<|extra|>'" in capsys.readouterr().err

"""Names of settings as users write them: last words, words of other programs, and shortened flags."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration import check_arguments, with_full_keys
from smoa_lightning.configuration.keys import Keys

from .commands import refused

PIQA = ["--config", str(Path(__file__).parents[2] / "experiments" / "piqa.yaml")]


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("--lr 1e-3", "--model.optimizer.lr 1e-3"),
        ("--lr=1e-3 --data.batch_size 4", "--model.optimizer.lr=1e-3 --data.batch_size 4"),
        ("--r 4 --num_subspaces 4", "--model.adapter.r 4 --model.adapter.num_subspaces 4"),
        ("--adapter.r 4", "--model.adapter.r 4"),
        ("--max_epochs 1 --task boolq", "--trainer.max_epochs 1 --data.task boolq"),
        ("--callbacks+=Timer --print_config", "--trainer.callbacks+=Timer --print_config"),
        ("--seed_everything 3 --model.adapter.r 4", "--seed_everything 3 --model.adapter.r 4"),
        ("--nonsense 3", "--nonsense 3"),
    ],
)
def test_last_words_become_full_keys(given: str, full: str) -> None:
    assert with_full_keys("fit", [*PIQA, *given.split()]) == [*PIQA, *full.split()]


def test_last_words_are_those_of_studies() -> None:
    classes = {"model.adapter": ["smoa_lightning.adapters.SMoAConfig"], "model.optimizer": ["torch.optim.AdamW"]}
    keys = Keys(classes)
    for word in ("lr", "r", "num_subspaces", "max_epochs", "warmup", "batch_size"):
        (flag,) = with_full_keys("fit", [*PIQA, f"--{word}=1"])[2:]
        assert flag == f"--{Keys.short(keys.find(word))}=1"


def test_the_class_decides_which_words_there_are() -> None:
    lora = ["--model.adapter", "peft.LoraConfig"]
    assert with_full_keys("fit", [*lora, "--lora_alpha", "4"])[2:] == ["--model.adapter.lora_alpha", "4"]
    with pytest.raises(UserError, match="unknown key 'lora_alpha'"):
        check_arguments("fit", with_full_keys("fit", [*PIQA, "--lora_alpha", "4"]))
    with pytest.raises(
        UserError, match=r"^--seed may mean --seed_everything or --data\.seed or --model\.adapter\.seed$"
    ):
        with_full_keys("fit", [*PIQA, "--seed", "1"])


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("--rank 4", "unknown key 'rank'; it is model.adapter.r here, or --r"),
        ("--model.adapter.rank 4", "the nearest keys are model.adapter.r, "),
        ("--learning_rate 1", "unknown key 'learning_rate'; it is model.optimizer.lr here, or --lr"),
        ("--trainer.epochs 1", "the nearest keys are trainer.max_epochs, "),
        ("--lrr 1e-3", "the nearest key is model.optimizer.lr\n"),
        ("--max_epoch 1", "the nearest key is trainer.max_epochs"),
        ("--adapter.rr 4", "the nearest keys are model.adapter.r"),
        ("--output_dir x", "the nearest keys are run.root, "),
        ("--model.adapter peft.LoRAConfig", "the nearest classes in peft are LoraConfig, "),
        ("--model.adapter LoRAConfig", "the nearest are LoraConfig, "),
        ("--model.adapter smoa", "the nearest is SMoAConfig"),
        ("--model.adapter hira", "the nearest are HiraConfig, "),
        ("--model.adapter smoa_lightning.adapters.SmoaConfig", "are SMoAConfig, "),
        ("--data.task PIQA", "did you mean piqa"),
    ],
)
def test_words_of_other_programs_get_the_setting(words: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert near in refused(["fit", *PIQA, *words.split()], capsys)


@pytest.mark.parametrize(
    ("command", "flag", "full"),
    [
        (["fit", *PIQA], "--model.backbone.sourc=local", "model.backbone.source"),
        (["params", *PIQA], "--model.adapter.num_sub=2", "model.adapter.num_subspaces"),
        (["test", *PIQA], "--ckpt_pat=x", "ckpt_path"),
        (["generate", "/nowhere"], "--promp=x", "--prompt"),
        (["export", "/nowhere", "--output=x"], "--form=lora", "--format"),
        (["rank", "/nowhere"], "--layer=3", "--layers"),
        (["report", "/nowhere"], "--ou=x", "--out"),
        (["ablate", "--config=rank"], "--work=2", "--workers"),
        (["ablate", "--config=rank"], "--worker=2", "--workers"),
        (["ablate", "--config=rank"], "--trials=5", "search.trials"),
    ],
)
def test_no_command_takes_shortened_flags(
    command: list[str], flag: str, full: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*command, flag, *(["--prompt=x"] if command[0] == "generate" else [])]
    assert full in refused(arguments, capsys)


@pytest.mark.parametrize(
    "command",
    [
        ["test", "--ckpt_path", "/no/where"],
        ["rank", "/no/where"],
        ["generate", "/no/where", "--prompt", "x"],
        ["export", "/no/where", "--output", "/no/out"],
        ["report", "/no/where"],
        ["report", "/no/where/studies/rank"],
        ["compare", "/no/where", "base"],
        ["compare", "/no/where/studies/rank/runs/lora", "/no/other"],
        ["ablate", "--config", "/no/where"],
        ["fit", "--config", "/no/where"],
        ["params", *PIQA, "--model.backbone.source", "local", "--model.backbone.path", "/no/where"],
        ["fit", *PIQA, "--data.source", "local", "--data.path", "/no/where"],
    ],
    ids=lambda command: " ".join(command[:1] + command[-2:]),
)
def test_a_missing_path_does_not_exist(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(command, capsys)
    assert "/no/where" in text
    assert "does not exist" in text


def test_help_takes_last_words_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *PIQA, "--r", "7", "--help"]) == 0
    assert "--model.adapter.r int = 7 " in capsys.readouterr().out


EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (
            "--model.adapter peft.LoraConfig",
            "model.adapter is peft.LoraConfig; set for smoa_lightning.adapters.SMoAConfig and kept: "
            "model.adapter.r 32, model.optimizer.lr 0.02",
        ),
        ("--model.adapter peft.LoraConfig --model.adapter.r 4", "SMoAConfig and kept: model.optimizer.lr 0.02"),
        ("--model.adapter.r 4 --model.adapter peft.LoraConfig", "SMoAConfig and kept: model.optimizer.lr 0.02"),
        ("--model.adapter peft.LoraConfig --r 4 --lr 1e-3", ""),
        ("--model.optimizer torch.optim.SGD", "kept: model.optimizer.lr 0.02, model.optimizer.weight_decay 0.0"),
        (f"--config {EXPERIMENTS / 'adapters' / 'lora.yaml'}", ""),
        ("--model.adapter smoa_lightning.adapters.SMoAConfig", ""),
        (
            f"--config {EXPERIMENTS / 'adapters' / 'surm_adapter.yaml'}"
            f" --config {EXPERIMENTS / 'adapters' / 'surm_circulant.yaml'}",
            "SurmConfig again; set by an earlier file and kept: model.adapter.slot adapter",
        ),
        (
            f"--config {EXPERIMENTS / 'paper.yaml'} --config {EXPERIMENTS / 'adapters' / 'lora.yaml'}",
            "not kept: model.adapter.dropout 0.05 (its setting is lora_dropout)",
        ),
        ("--model.adapter null", ""),
        ("--model.adapter peft.LoraConfig --print_config", ""),
    ],
)
def test_what_a_new_class_keeps_from_the_old_one_is_said(
    words: str, note: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="smoa_lightning"):
        check_arguments("fit", with_full_keys("fit", [*PIQA, *words.split()]))
    assert note in caplog.text
    assert len(caplog.records) == bool(note)

"""The subcommand ``generate``: what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from smoa_lightning.__main__ import main
from smoa_lightning.commands import export, generate, rank
from smoa_lightning.training import generate as module
from smoa_lightning.training.adapter_folder import load_adapter
from smoa_lightning.training.generate import texts_to_prompts
from smoa_lightning.training.generation.speaker import Decoding


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, piqa_folder: Path) -> Path:
    root = tmp_path_factory.mktemp("generate")
    status = main(
        [
            *("fit", "--config", str(Path(__file__).parents[2] / "experiments" / "piqa.yaml")),
            *("--model.backbone.source", "local", "--model.backbone.path", str(tiny_backbone)),
            *("--data.source", "local", "--data.path", str(piqa_folder), "--run.root", str(root)),
            *(
                "--model.adapter.r",
                "4",
                "--data.batch_size",
                "8",
                "--data.selection_rows",
                "8",
                "--data.add_bos",
                "true",
            ),
            *("--trainer.max_steps", "4", "--run.score_base", "false", "--run.score_report", "false"),
            *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        ]
    )
    assert status == 0
    (record,) = root.glob("*/*/record.json")
    return record.parent


def by_hand(run: Path, prompt: str, count: int) -> str:
    """Continue one prompt with BOS, as the run was trained, by full forwards."""
    model, tokenizer = load_adapter(run)
    start = ids = [1, *tokenizer(prompt).input_ids]
    for _ in range(count):
        with torch.no_grad():
            following = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if following == tokenizer.eos_token_id:
            break
        ids = [*ids, following]
    return tokenizer.decode(ids[len(start) :])


def test_an_empty_reply_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The standard output stays empty; next to another model, the column says it."""
    prompts, speakers = texts_to_prompts(["x"]), [SimpleNamespace(label="run"), SimpleNamespace(label="base")]
    monkeypatch.setattr(module, "replies_of", lambda *_: [[""]])
    generate._print(speakers[:1], prompts, Decoding(4))  # type: ignore[arg-type]
    assert capsys.readouterr() == ("\n", f"{generate.EMPTY}\n")
    monkeypatch.setattr(module, "replies_of", lambda *_: [[""], ["a towel"]])
    generate._print(speakers, prompts, Decoding(4))  # type: ignore[arg-type]
    assert "(empty reply" in capsys.readouterr().out


def test_prints_the_continuation_of_one_prompt(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["generate", str(trained), "--prompt", "Question: How?\nAnswer: ", "--max_new_tokens", "9"]) == 0
    printed = capsys.readouterr().out
    expected = by_hand(trained, "Question: How?\nAnswer:", 9).strip()
    assert expected
    assert printed == f"{expected}\n"
    assert main(["generate", str(trained / "adapter" / "last"), "--prompt", "x", "--max_new_tokens", "2"]) == 0


def test_several_prompts_and_beams(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    flags = ["--prompt", "A long one to begin with", "--prompt", "B", "--max_new_tokens", "5"]
    assert main(["generate", str(trained), *flags]) == 0
    printed = capsys.readouterr().out
    for prompt in ("A long one to begin with", "B"):
        assert f"> {prompt}\n{by_hand(trained, prompt, 5).strip()}\n" in printed
    assert main(["generate", str(trained), *flags, "--num_beams", "3"]) == 0
    assert capsys.readouterr().out.count("> ") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/nowhere", "--prompt", "x"], "/nowhere does not exist"),
        (["RUN"], "generate: one of the arguments --prompt --file --chat is required; see generate --help"),
        (["RUN", "--prompt", "x", "--max_new_tokens", "0"], "--max_new_tokens is 0; the smallest value is 1"),
        (["RUN", "--promt", "x"], "generate: unrecognized arguments: --promt: the nearest flag is --prompt; see"),
        (["RUN", "--fil=x"], "generate: unrecognized arguments: --fil=x: the nearest flag is --file; see"),
        (["RUN", "--prompt", "x", "--num_beams", "-2"], "--num_beams is -2; the smallest value is 1"),
        (["RUN", "--prompt", "x", "--num_beams", "two"], "invalid int value: 'two'"),
        (["RUN", "--prompt", "x", "--beams", "2"], "unrecognized arguments: --beams 2"),
        (["RUN", "--prompt", "x", "--max-new-tokens", "5"], "the nearest flag is --max_new_tokens"),
        (["RUN", "--prompt", "x", "--chat"], "argument --chat: not allowed with argument --prompt"),
        (["RUN", "--prompt", "x", "--temperature", "-1"], "--temperature is -1.0; the smallest value is 0"),
        (["RUN", "--prompt", "x", "--temperature", "nan"], "--temperature is nan; the smallest value is 0"),
        (["RUN", "--prompt", "x", "--top_p", "1.5"], "--top_p is 1.5; it must be above 0 and at most 1"),
        (["RUN", "--prompt", "x", "--top_p", "0.5"], "--top_p has no effect without draws: set --temperature too"),
        (["RUN", "--prompt", "x", "--temperature", "1", "--num_beams", "2"], "so --num_beams must be 1, not 2"),
        (["RUN", "--prompt", "x", "--seed", "-1"], "--seed is -1; the smallest value is 0"),
        (["RUN", "--file", "x.jsonl"], "--file needs --output, a file such as replies.jsonl"),
        (["RUN", "--prompt", "x", "--output", "x.jsonl"], "--output needs --file"),
        (["RUN", "--file", "x.jsonl", "--output", "x.jsonl"], "--output is the file of the prompts; name a new file"),
        (["RUN", "--chat", "--turns"], "--turns is for --prompt"),
        (["RUN", "--prompt", ""], "--prompt must not be empty: write a text to continue"),
        (["RUN", "--prompt", "x", "--prompt", " "], "--prompt must not be empty (prompt 2 of 2)"),
        (["RUN", "--prompt", "x", "--against", "RUN"], "is the same adapter as RUN; name another run, or base"),
        (["RUN", "--prompt", "x", "--against", "/nowhere"], "is neither a run with an adapter nor an adapter folder"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", *(str(tmp_path) if a == "RUN" else a for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", [generate, rank, export])
def test_the_folder_of_the_backbone_has_a_short_flag(command: Any) -> None:
    needed = {generate: ["--prompt", "x"], rank: [], export: ["--output", "x"]}[command]
    for flag in ("--backbone", "--model.backbone.path"):
        assert command.parser().parse_args(["RUN", *needed, flag, "moved"]).backbone == "moved"


def test_help_shows_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["generate", "--help"])
    assert stop.value.code == 0
    assert "--max_new_tokens" in capsys.readouterr().out


def test_a_place_near_an_adapter_is_named(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for near in (trained.parent, trained / "checkpoints", trained / "checkpoints" / "best.ckpt"):
        assert main(["generate", str(near), "--prompt", "x"]) == 2
        assert f"did you mean {trained}?" in capsys.readouterr().err
    (tmp_path / "adapter_config.json").write_text("{}")
    assert main(["rank", str(tmp_path)]) == 2
    assert "peft alone has saved it, so load it with PeftModel.from_pretrained" in capsys.readouterr().err
    assert main(["test", "--ckpt_path", str(trained)]) == 2
    assert f"did you mean {trained}/checkpoints/best.ckpt?" in capsys.readouterr().err

"""Any config class of peft is a strategy, by its class path alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smoa_lightning.__main__ import main

FLAGS: dict[str, list[str]] = {
    "LoKrConfig": [],
    "IA3Config": [],
    "VeraConfig": [],
    "OFTConfig": ["--model.adapter.r", "0", "--model.adapter.oft_block_size", "4"],
    "C3AConfig": ["--model.adapter.block_size", "8"],
    "LNTuningConfig": [],
    "PromptTuningConfig": ["--model.adapter.num_virtual_tokens", "4"],
}
WITHOUT_UPDATE_MATRIX = {"LNTuningConfig", "PromptTuningConfig"}


@pytest.mark.filterwarnings("ignore::UserWarning")  # peft warns about defaults of its own methods
@pytest.mark.parametrize("name", FLAGS)
def test_two_steps(name: str, tiny_arguments: list[str], tmp_path: Path) -> None:
    arguments = [argument for argument in tiny_arguments if argument not in ("--model.adapter.r", "4")]
    arguments += ["--model.adapter", f"peft.{name}", *FLAGS[name], "--trainer.max_steps", "2"]
    assert main(["fit", *arguments, "--trainer.limit_test_batches", "1"]) == 0
    (file,) = (tmp_path / "runs").glob("*/*/record.json")
    record = json.loads(file.read_text())
    assert record["status"] == "finished"
    assert 0 < record["metrics"]["parameters/trainable"] < record["metrics"]["parameters/total"]
    assert (record["metrics"]["rank/effective_mean"] == -1) == (name in WITHOUT_UPDATE_MATRIX)
    assert (file.parent / "adapter" / "best" / "adapter_config.json").is_file()


def test_settings_that_peft_refuses_are_one_sentence(
    tiny_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [argument for argument in tiny_arguments if argument not in ("--model.adapter.r", "4")]
    assert main(["fit", *arguments, "--model.adapter", "peft.FourierFTConfig"]) == 2
    assert "n_frequency" in capsys.readouterr().err

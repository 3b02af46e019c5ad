"""A prompt method together with an adapter of weights, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from smoa_lightning.__main__ import main
from smoa_lightning.adapters import SMoAConfig, load_both
from smoa_lightning.adapters.inspect import sizes
from smoa_lightning.backbones.backbone import BackboneConfig, load_skeleton
from smoa_lightning.common.errors import UserError
from smoa_lightning.training.adapter_folder import load_adapter
from smoa_lightning.training.memory.fake_model import meta_model
from smoa_lightning.training.module import FineTuneModule

from ..runs import Killed, die_at_step, only_run

PAIR = ["--config", "overlays/with_prompt", "--model.prompt.num_virtual_tokens", "4"]
# generate() passes positions, which a prompt method moves by its virtual tokens
pytestmark = pytest.mark.filterwarnings("ignore:Position ids are not supported for parameter efficient:UserWarning")


def test_pair_is_trained_resumed_scored_and_loaded(
    short_arguments: list[str],
    tiny_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["fit", *short_arguments, *PAIR, "--checkpoint.every_n_steps", "2", "--run.score_base", "false"]
    assert main([*arguments, "--run.root", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        die_at_step(patch, 3)
        with pytest.raises(Killed):
            main([*arguments, "--run.root", str(tmp_path / "cut")])
    assert main([*arguments, "--run.root", str(tmp_path / "cut")]) == 0
    whole, cut = only_run(tmp_path / "whole"), only_run(tmp_path / "cut")
    for name in ("adapter_model.safetensors", "weights/adapter_model.safetensors"):
        once, again = (load_file(run / "adapter" / "last" / name) for run in (whole, cut))
        assert once
        assert all(torch.equal(once[key], again[key]) for key in once)

    record = json.loads((whole / "record.json").read_text())
    assert record["name"].startswith("piqa-smoa_spectral_blocks+prompt_tuning-r4-K2-tokens4-")
    assert record["hyperparameters"]["strategy"] == "smoa_spectral_blocks+prompt_tuning"
    folder, metrics = whole / "adapter" / "best", record["metrics"]
    saved = [folder / "adapter_model.safetensors", folder / "weights" / "adapter_model.safetensors"]
    tensors = [load_file(file) for file in saved]
    assert metrics["parameters/adapter_bytes"] == sum(file.stat().st_size for file in saved)
    assert tensors[0]["prompt_embeddings"].shape == (4, 32)
    factors = sum(t.numel() for name, t in tensors[1].items() if "smoa_A" in name or "smoa_B" in name)
    assert metrics["parameters/trainable"] == 4 * 32 + factors

    ids = torch.tensor([[5, 6, 7, 8]])
    model, _ = load_adapter(whole)
    base = AutoModelForCausalLM.from_pretrained(tiny_backbone)
    pair = load_both(base, folder).eval()
    alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_backbone), str(folder)).eval()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, pair(ids).logits)
        assert not torch.allclose(model(ids).logits, alone(ids).logits)  # the prompt of peft without the weights

    checkpoint = str(whole / "checkpoints" / "best.ckpt")
    assert main(["test", "--ckpt_path", checkpoint, "--run.folder", str(tmp_path / "test")]) == 0
    tested = json.loads((tmp_path / "test" / "evaluation.json").read_text())["metrics"]
    assert tested["report/nll"] == metrics["report/nll"]
    assert main(["generate", str(whole), "--prompt", "A jar", "--max_new_tokens", "3"]) == 0
    assert main(["rank", str(whole), "--layers", "1"]) == 0
    capsys.readouterr()
    assert main(["export", str(whole), "--output", str(tmp_path / "merged")]) == 2
    assert f"reads the prompt from {folder} and the weights from {folder / 'weights'}" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


PROMPTS: dict[str, Any] = {
    "tuning": lambda: peft.PromptTuningConfig(num_virtual_tokens=3, prompt_tuning_init="SAMPLE_VOCAB"),
    "encoder": lambda: peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=3),
}


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("weights", [lambda: SMoAConfig(r=4), lambda: peft.LoraConfig(r=2, bias="all")])
def test_counts_without_weights_are_those_of_the_loaded_model(weights: Any, prompt: str, tiny_backbone: Path) -> None:
    module = FineTuneModule(BackboneConfig("local", path=str(tiny_backbone)), weights(), prompt=PROMPTS[prompt]())
    counted = sizes(meta_model(module, load_skeleton(module.backbone_config, module.location)))
    module.configure_model()
    assert sizes(module.network) == counted
    trained = {f"model.{name}" for name, parameter in module.network.named_parameters() if parameter.requires_grad}
    assert trained <= module.state_dict().keys()


def test_what_is_no_pair_is_refused(tiny_backbone: Path) -> None:
    backbone, prompt = BackboneConfig("local", path=str(tiny_backbone)), PROMPTS["tuning"]()
    for settings, words in (
        ({"adapter": None}, "but model.adapter is null"),
        ({"adapter": PROMPTS["prefix"]()}, "model.adapter is PrefixTuningConfig, a prompt method"),
        ({"adapter": SMoAConfig(), "budget": "10k"}, "model.budget sets the size of one method"),
        (
            {"adapter": SMoAConfig(), "prompt": peft.LoraConfig()},
            "model.prompt is LoraConfig, but takes one of peft.",
        ),
    ):
        with pytest.raises(UserError) as error:
            FineTuneModule(backbone, **({"prompt": prompt} | settings))  # type: ignore[arg-type]
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.prompt", "peft.LoraConfig"], "model.prompt: there is no prompt method 'peft.LoraConfig'"),
        (["--model.prompt.num_tokens", "4"], "unknown key 'model.prompt.num_tokens' of peft.PromptTuningConfig"),
        (["--config", "glue/cola", "--data.source", "embedded", "--data.path", "null"], "the task has a new head"),
    ],
)
def test_wrong_settings_of_a_pair_are_refused(
    flags: list[str], words: str, short_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *short_arguments, *PAIR, *flags, "--run.root", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

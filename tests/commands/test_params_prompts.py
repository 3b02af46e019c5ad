"""``params`` of prompt methods, whose encoders are on the meta device: the size of the file is that of a run's file."""

from __future__ import annotations

from pathlib import Path

import pytest
from peft import PeftConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig
from transformers import AutoModelForCausalLM

from smoa_lightning.__main__ import main
from smoa_lightning.adapters import attach
from smoa_lightning.adapters.inspect import adapter_bytes
from smoa_lightning.backbones.backbone import BackboneConfig, load_skeleton, locate
from tests.conftest import EXPERIMENTS

CONFIGS: dict[str, PeftConfig] = {
    "prefix": PrefixTuningConfig(num_virtual_tokens=4),
    "prefix with projection": PrefixTuningConfig(num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=8),
    "prompt": PromptTuningConfig(num_virtual_tokens=4),
    "p-tuning": PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=8),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_bytes_on_the_meta_device_are_those_of_the_loaded_model(name: str, tiny_backbone: Path) -> None:
    settings = BackboneConfig("local", path=str(tiny_backbone))
    skeleton = attach(load_skeleton(settings, locate(settings)), CONFIGS[name], 0)
    encoder = skeleton.prompt_encoder["default"]
    size = adapter_bytes(skeleton)
    assert skeleton.prompt_encoder["default"] is encoder
    loaded = attach(AutoModelForCausalLM.from_pretrained(tiny_backbone), CONFIGS[name], 0)
    assert size == adapter_bytes(loaded)


@pytest.mark.parametrize("name", ["prefix", "prompt", "ptuning"])
def test_params_of_a_local_backbone(name: str, tiny_backbone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--config", str(EXPERIMENTS / "piqa.yaml"), "--config", str(EXPERIMENTS / "adapters" / f"{name}.yaml")]
    backbone = ["--model.backbone.source", "local", "--model.backbone.path", str(tiny_backbone)]
    assert main(["params", *files, *backbone, "--no_memory"]) == 0
    assert "adapter file: about " in capsys.readouterr().out

"""Every shipped strategy trains a step on the embedded backbone; any config class of peft is one by its class path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from smoa_lightning.__main__ import main
from smoa_lightning.common.quiet import quiet_libraries
from smoa_lightning.configuration import expand_bases
from smoa_lightning.embedded import backbone_folder
from smoa_lightning.training.adapter_folder import load_adapter
from smoa_lightning.training.cli import FineTuneCLI

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
STRATEGIES = [p.stem for p in sorted(EXPERIMENTS.glob("adapters/*.yaml"))]
# tests/adapters tries them on tiny models: methods of peft in test_peft_methods.py, other settings of a method that is
# tried here in test_matrix.py. Their files are parsed in tests/configuration.
SLOW = {"deft", "delora", "frod", "glora", "hra", "mica", "miss", "osf", "peanut", "psoft", "road", "shadow", "shira"}
SLOW |= {"supertuning", "tinylora", "unilora", "vblora", "velora", "waveft"}
SLOW |= {"bhra", "boft", "c3a", "fourierft", "gralora", "loha", "lokr", "oft", "pissa", "randlora", "rslora", "vera"}
SLOW |= {"bottleneck_pfeiffer", "mora_published", "mora_rotation", "smoa_contiguous", "smoa_energy", "surm_kronecker"}
SLOW |= {"surm_ldr", "surm_toeplitz", *(name for name in STRATEGIES if name.startswith("surm_") and "publ" in name)}
WITHOUT_UPDATE_MATRIX = {
    "prefix",
    "prompt",
    "ptuning",
    "bottleneck",
    "bottleneck_pfeiffer",
    "surm_adapter",
    "frozen",
    "shadow",
}
WITHOUT_UPDATE_MATRIX |= {name for name in STRATEGIES if name.startswith("surm_adapter_")}
# The base score is that of the backbone, the same before every strategy: one of each kind takes it.
SCORED_BEFORE = {"lora", "smoa_blocks", "prefix", "bottleneck", "adalora", "full", "frozen"}
IDS = torch.tensor([[1, 300, 20, 700, 45, 6]])


def configuration(name: str, rows: Path) -> list[str]:
    return [
        *("--config", str(EXPERIMENTS / "piqa.yaml"), "--config", str(EXPERIMENTS / "adapters" / f"{name}.yaml")),
        *("--model.backbone.source", "local", "--model.backbone.path", str(backbone_folder())),
        *("--data.source", "local", "--data.path", str(rows), "--data.batch_size", "4", "--data.selection_rows", "4"),
        *("--data.eval_batch_size", "4", "--rank_monitor.max_layers", "1", "--forgetting.max_documents", "4"),
    ]


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits[:, -IDS.shape[1] :]  # without those of virtual tokens


@pytest.fixture(scope="module")
def untouched() -> torch.Tensor:
    return logits(AutoModelForCausalLM.from_pretrained(backbone_folder(), dtype=torch.float32))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in STRATEGIES]
)
def test_one_step(name: str, piqa_folder: Path, tmp_path: Path, untouched: torch.Tensor) -> None:
    """The run finishes, and its folder holds what was trained: the checkpoint's weights give the same logits."""
    arguments = configuration(name, piqa_folder)
    limits = ["--trainer.max_steps", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    limits += ["--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1", "--run.root", str(tmp_path)]
    limits += ["--run.score_base", "true" if name in SCORED_BEFORE else "false"]
    quiet_libraries()
    module = FineTuneCLI(expand_bases(["fit", *arguments, *limits])).model
    (file,) = tmp_path.glob("*/*/record.json")
    record = json.loads(file.read_text())
    metrics = record["metrics"]
    assert record["status"] == "finished"
    assert "report/acc" in metrics
    assert ("base/acc" in metrics) == (name in SCORED_BEFORE)
    assert (metrics.get("rank/effective_mean", -1) == -1) == (name in WITHOUT_UPDATE_MATRIX)
    if name == "frozen":
        assert metrics["parameters/trainable"] == 0
        assert not (file.parent / "adapter").exists()
        return
    assert metrics["parameters/trainable"] > 0
    assert (metrics["parameters/trainable"] == metrics["parameters/total"]) == (name == "full")
    loaded, tokenizer = load_adapter(file.parent / "adapter" / "last")
    assert tokenizer.eos_token_id == 2
    for parameter in module.network.parameters():
        if parameter.requires_grad:
            parameter.data.zero_()
    checkpoint = torch.load(file.parent / "checkpoints" / "last.ckpt", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    found = logits(loaded)
    torch.testing.assert_close(found, logits(module.network), atol=1e-5, rtol=1e-5)
    assert (found - untouched).abs().max() > 1e-4


@pytest.mark.filterwarnings("ignore::UserWarning")  # peft warns about defaults of its own methods
@pytest.mark.parametrize("name", ["LNTuningConfig", "HRAConfig"])
def test_methods_without_a_file(name: str, tiny_arguments: list[str], tmp_path: Path) -> None:
    arguments = [argument for argument in tiny_arguments if argument not in ("--model.adapter.r", "4")]
    arguments += ["--model.adapter", f"peft.{name}", "--trainer.max_steps", "2", "--trainer.limit_test_batches", "1"]
    assert main(["fit", *arguments]) == 0
    (file,) = (tmp_path / "runs").glob("*/*/record.json")
    record = json.loads(file.read_text())
    assert record["status"] == "finished"
    assert 0 < record["metrics"]["parameters/trainable"] < record["metrics"]["parameters/total"]
    assert (record["metrics"]["rank/effective_mean"] == -1) == (name == "LNTuningConfig")
    assert (file.parent / "adapter" / "best" / "adapter_config.json").is_file()


def test_settings_that_peft_refuses_are_one_sentence(
    tiny_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [argument for argument in tiny_arguments if argument not in ("--model.adapter.r", "4")]
    assert main(["fit", *arguments, "--model.adapter", "peft.FourierFTConfig"]) == 2
    assert "n_frequency" in capsys.readouterr().err

"""No folder of an adapter or a model makes a command run code, even if its checksums are right."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from smoa_lightning.backbones.kernels import check_kernels
from smoa_lightning.common.allowed_classes import allowing
from smoa_lightning.common.checksums import sealed, sha256
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.class_names import check_adapter_files
from smoa_lightning.evaluation.text import load_encoder
from smoa_lightning.records.record import ADAPTER_FACTS
from smoa_lightning.training import adapter_folder
from smoa_lightning.training.adapter_folder import CARD, load_adapter, read_adapter_facts
from smoa_lightning.training.run_checkpoints import current

from .commands import refused


def reseal(folder: Path) -> None:
    """Compute the checksums of an adapter folder anew, as someone who plants a folder would."""
    facts = folder / ADAPTER_FACTS
    files = [file for file in folder.iterdir() if file.name not in (CARD, ADAPTER_FACTS)]
    content = json.loads(facts.read_text()) | {"sha256": {file.name: sha256(file) for file in files}}
    facts.write_text(json.dumps(sealed(content)))


def changed_folder(trained: Path, folder: Path, change: dict[str, Any]) -> Path:
    """Copy an adapter folder, and change its adapter_config.json; the checksums are right."""
    shutil.copytree((current(trained) or trained) / "adapter" / "best", folder)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    reseal(folder)
    read_adapter_facts(folder)  # nothing else is wrong
    return folder


@pytest.mark.parametrize("command", ["generate", "rank"])
@pytest.mark.parametrize(
    "change",
    [
        {"auto_mapping": {"base_model_class": "Thing", "parent_library": "planted"}},
        {"auto_mapping": {"base_model_class": "system", "parent_library": "os"}},
        {"megatron_config": {"x": 1}, "megatron_core": "planted"},
        {"tokenizer_kwargs": {"trust_remote_code": True}},
        {"corda_config": {"class_path": "planted.Thing"}},
    ],
    ids=["planted", "os", "megatron", "remote code", "class path"],
)
def test_an_adapter_folder_imports_nothing(
    change: dict[str, Any], command: str, trained: Path, marker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed_folder(trained, marker.with_name("adapter"), change)
    arguments = [command, str(folder), *(["--prompt", "x"] if command == "generate" else [])]
    reason = "trust_remote_code" if "tokenizer_kwargs" in change else "--allow_classes"
    text = refused(arguments, capsys)
    assert str(folder) in text
    assert reason in text
    with pytest.raises(UserError, match=reason):
        load_adapter(folder)
    assert not marker.exists()


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("command", ["generate", "rank"])
def test_a_pickled_adapter_is_refused(
    command: str, trained: Path, marker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed_folder(trained, marker.with_name("adapter"), {})
    (folder / "adapter_model.safetensors").unlink()
    torch.save(Payload(marker), folder / "adapter_model.bin")
    reseal(folder)
    arguments = [command, str(folder), *(["--prompt", "x"] if command == "generate" else [])]
    assert "pickle" in refused(arguments, capsys)
    assert not marker.exists()


KERNELS = {
    "plain": {"attn_implementation": "someone/kernel"},
    "private": {"_attn_implementation": "someone/kernel"},
    "mapping": {"attn_implementation": {"": "someone/kernel"}},
    "part": {"attn_implementation": {"text_config": "someone/kernel"}},
    "private mapping": {"_attn_implementation": {"": "someone/kernel@v1"}},
    "inside a part": {"text_config": {"_attn_implementation": "someone/kernel"}},
}
SEEN_BY_TRANSFORMERS = ("plain", "private", "mapping", "private mapping")


@pytest.fixture
def whole(tiny_backbone: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a fully fine-tuned model; if a kernel is loaded there is the marker."""
    folder = marker.with_name("whole")
    shutil.copytree(tiny_backbone, folder)
    facts = {"backbone": {"source": "embedded"}, "location": {"source": "embedded", "name": "x", "revision": None}}
    (folder / ADAPTER_FACTS).write_text(json.dumps(facts))
    reseal(folder)
    for module in (transformers.modeling_utils, transformers.integrations.hub_kernels):
        load = "load_and_register_attn_kernel"
        monkeypatch.setattr(module, load, lambda *args, **kwargs: marker.write_text("loaded"), raising=False)
    return folder


def plant(folder: Path, change: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    reseal(folder)


@pytest.mark.parametrize("name", KERNELS)
def test_a_fully_fine_tuned_folder_names_no_kernel_of_the_hub(
    name: str, whole: Path, marker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(whole, KERNELS[name])
    for command in (["generate", str(whole), "--prompt", "x"], ["rank", str(whole)]):
        assert "--allow_classes kernels" in refused(command, capsys)
    with pytest.raises(UserError, match="--allow_classes kernels"):
        load_adapter(whole)
    with allowing(["kernels"]):
        check_adapter_files(whole)
    assert not marker.exists()


@pytest.mark.parametrize("name", SEEN_BY_TRANSFORMERS)
def test_a_kernel_is_refused_again_where_the_model_is_read(
    name: str, whole: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_folder, "check_adapter_files", lambda folder: None)
    plant(whole, KERNELS[name])
    with pytest.raises(UserError, match="--allow_classes kernels"):
        load_adapter(whole)
    assert not marker.exists()


@pytest.mark.parametrize("name", SEEN_BY_TRANSFORMERS)
def test_the_encoder_of_bert_score_names_no_kernel_of_the_hub(name: str, whole: Path, marker: Path) -> None:
    plant(whole, KERNELS[name])
    with pytest.raises(UserError, match="--allow_classes kernels"):
        load_encoder(str(whole))
    assert not marker.exists()


def test_a_kernel_in_a_part_of_a_model_is_code_too() -> None:
    architecture = transformers.AutoConfig.for_model("gemma3")
    check_kernels(architecture, "x")
    architecture.text_config._attn_implementation = "someone/kernel"
    with pytest.raises(UserError, match="x names the attention kernel 'someone/kernel'"):
        check_kernels(architecture, "x")


def test_an_allowed_package_passes_the_check_of_a_folder(trained: Path, marker: Path) -> None:
    change = {"auto_mapping": {"base_model_class": "Thing", "parent_library": "planted"}}
    folder = changed_folder(trained, marker.with_name("adapter"), change)
    with allowing(["planted"]):
        check_adapter_files(folder)
    with pytest.raises(UserError, match="--allow_classes planted"):
        check_adapter_files(folder)

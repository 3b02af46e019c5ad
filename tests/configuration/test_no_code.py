"""No file makes a command run code: settings take classes that fit, and checkpoints and adapters only trusted ones."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from smoa_lightning.__main__ import main
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

from ..runs import only_run

PLANTED = """
import pathlib
pathlib.Path({marker!r}).write_text("imported")
class Thing:
    def __init__(self, *args, **kwargs):
        pathlib.Path({marker!r}).write_text("made")
def function(*args, **kwargs):
    pathlib.Path({marker!r}).write_text("called")
"""


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists as soon as the package `planted` is imported or called, or a named command runs."""
    file = tmp_path / "marker"
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "planted.py").write_text(PLANTED.format(marker=str(file)))
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    return file


def attacks(marker: Path) -> dict[str, dict[str, Any]]:
    """Class settings that would make the marker."""
    saved = marker.with_name("saved.pt")
    torch.save({"a": 1}, saved)
    return {
        "os.system": {"class_path": "os.system", "init_args": {"command": f"touch {marker}"}},
        "subprocess.Popen": {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(marker)]}},
        "builtins.exec": {"class_path": "builtins.exec", "init_args": {"source": f"open({str(marker)!r}, 'w')"}},
        "torch.load": {"class_path": "torch.load", "init_args": {"f": str(saved)}},
        "torch.save": {"class_path": "torch.save", "init_args": {"obj": 1, "f": str(marker)}},
        "torch.os.system": {"class_path": "torch.os.system", "init_args": {"command": f"touch {marker}"}},
        "no subclass": {"class_path": "torch.utils.tensorboard.SummaryWriter", "init_args": {"log_dir": str(marker)}},
        "our own": {"class_path": "smoa_lightning.__main__.main", "init_args": {"args": ["--version"]}},
    }


NAMES = [
    *("os.system", "subprocess.Popen", "builtins.exec", "torch.load", "torch.save", "torch.os.system"),
    *("no subclass", "our own"),
]
PLACES = {
    "adapter": lambda attack: {"model": {"adapter": attack}},
    "optimizer": lambda attack: {"model": {"optimizer": attack}},
    "callback": lambda attack: {"trainer": {"callbacks": [attack]}},
    "logger": lambda attack: {"trainer": {"logger": attack}},
    "nested": lambda attack: {
        "model": {"adapter": {"class_path": "peft.LoraConfig", "init_args": {"r": 2, "megatron_config": {"x": attack}}}}
    },
    "wrong callable": lambda attack: {
        "trainer": {
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.LambdaCallback",
                    "init_args": {"on_fit_start": attack["class_path"]},
                }
            ]
        }
    },
}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused, and return its one sentence."""
    capsys.readouterr()
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert len(text.strip().splitlines()) == 1, text
    return text


@pytest.mark.parametrize("place", [name for name in PLACES if name != "nested"])
@pytest.mark.parametrize("name", NAMES)
def test_fit_refuses_the_settings_of_a_file(
    name: str, place: str, marker: Path, tiny_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = marker.with_name("attack.yaml")
    file.write_text(yaml.safe_dump(PLACES[place](attacks(marker)[name])))
    refused(["fit", *tiny_arguments, "--config", str(file)], capsys)
    assert not marker.exists()
    assert not (marker.parent / "runs").exists()


@pytest.mark.parametrize("command", ["validate", "test", "predict", "params"])
@pytest.mark.parametrize("name", NAMES)
def test_other_commands_refuse_the_settings_of_a_file(
    name: str, command: str, marker: Path, tiny_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = marker.with_name("attack.yaml")
    file.write_text(yaml.safe_dump(PLACES["optimizer"](attacks(marker)[name])))
    frozen = [] if command == "params" else ["--model.adapter", "null", "--model.frozen", "true"]
    refused([command, *tiny_arguments[:2], *frozen, "--config", str(file)], capsys)
    assert not marker.exists()


@pytest.mark.parametrize("plan", [["--plan"], []])
@pytest.mark.parametrize("name", NAMES)
def test_a_study_refuses_the_settings_of_its_files(
    name: str, plan: list[str], marker: Path, tiny_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    attack = marker.with_name("attack.yaml")
    attack.write_text(yaml.safe_dump(PLACES["optimizer"](attacks(marker)[name])))
    study = {"base": [tiny_arguments[1], str(attack)], "axes": {"r": [2, 4]}, "baseline": {"r": 2}, "seeds": 1}
    file = marker.with_name("study.yaml")
    file.write_text(yaml.safe_dump(study))
    refused(["ablate", "--config", str(file), "--root", str(marker.parent / "studies"), *plan], capsys)
    assert not marker.exists()


@pytest.mark.parametrize("flag", ["--model.optimizer", "--model.adapter", "--trainer.callbacks+", "--trainer.logger"])
def test_flags_take_no_functions(
    flag: str, marker: Path, tiny_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("os.system", "torch.load", "planted.function"):
        refused(["fit", *tiny_arguments, f"{flag}={name}"], capsys)
    assert not marker.exists() or marker.read_text() == "imported"


def test_a_value_without_a_declared_class_stays_a_mapping(
    marker: Path, tiny_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = marker.with_name("attack.yaml")
    file.write_text(yaml.safe_dump(PLACES["nested"](attacks(marker)["subprocess.Popen"])))
    text = refused(["params", *tiny_arguments[:2], "--config", str(file), "--model.backbone.source=embedded"], capsys)
    assert "megatron" in text
    assert not marker.exists()


# ------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, piqa_folder: Path) -> Path:
    root = tmp_path_factory.mktemp("no_code")
    arguments = [
        *("fit", "--config", str(Path(__file__).parents[2] / "experiments" / "piqa.yaml")),
        *("--model.backbone.source", "local", "--model.backbone.path", str(tiny_backbone)),
        *("--data.source", "local", "--data.path", str(piqa_folder), "--run.root", str(root)),
        *("--model.adapter.r", "4", "--data.batch_size", "8", "--data.selection_rows", "8"),
        *("--trainer.max_steps", "2", "--run.score_base", "false", "--run.score_report", "false"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
    ]
    assert main(arguments) == 0
    return only_run(root)


def crafted(trained: Path, file: Path, change: dict[str, Any]) -> Path:
    """Write a checkpoint whose model settings are replaced, with valid checksums."""
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["config"]["model"] |= change
    torch.save(checkpoint, file)
    return file


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
@pytest.mark.parametrize("place", ["adapter", "optimizer"])
@pytest.mark.parametrize("name", [*NAMES, "planted.Thing", "planted.function"])
def test_a_checkpoint_runs_no_code(
    name: str, place: str, command: str, trained: Path, marker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = attacks(marker).get(name, {"class_path": name})
    file = crafted(trained, marker.with_name("crafted.ckpt"), {place: attack})
    text = refused([command, "--ckpt_path", str(file), "--trainer.accelerator", "cpu"], capsys)
    assert str(file) in text
    assert not marker.exists()


def test_a_checkpoint_names_further_packages_only_with_the_flag(
    trained: Path, marker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = marker.parent / "packages" / "own_optimizers.py"
    own.write_text("import torch\nclass Mine(torch.optim.SGD):\n    pass\n")
    optimizer = {"class_path": "own_optimizers.Mine", "init_args": {"lr": 0.1}}
    file = crafted(trained, marker.with_name("crafted.ckpt"), {"optimizer": optimizer})
    command = ["test", "--ckpt_path", str(file), "--trainer.accelerator", "cpu", "--run.folder", str(own.parent / "o")]
    assert "--allow_classes own_optimizers" in refused(command, capsys)
    assert "own_optimizers" not in sys.modules
    assert "is not a package" not in refused([*command, "--allow_classes", "other"], capsys)
    assert "takes the name of a package" in refused([*command, "--allow_classes=a/b"], capsys)
    assert main([*command, "--allow_classes", "own_optimizers"]) == 0
    assert json.loads((own.parent / "o" / "evaluation.json").read_text())["other_classes"] == ["own_optimizers.Mine"]
    assert "own_optimizers" in refused(command, capsys)  # the flag holds for one command


def test_a_checkpoint_names_no_budget_file(trained: Path, marker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted = marker.with_name("like.yaml")
    planted.write_text(yaml.safe_dump({"model": {"adapter": {"class_path": "planted.Thing"}}}))
    file = crafted(trained, marker.with_name("crafted.ckpt"), {"budget": {"like": str(planted)}})
    assert "model.budget" in refused(["test", "--ckpt_path", str(file)], capsys)
    assert not marker.exists()


def test_a_kernel_of_the_hub_is_code_of_a_checkpoint(
    trained: Path, marker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)["config"]["model"]["backbone"]
    change = {"backbone": backbone | {"attn_implementation": "someone/kernel"}}
    file = crafted(trained, marker.with_name("crafted.ckpt"), change)
    assert "--allow_classes kernels" in refused(["test", "--ckpt_path", str(file)], capsys)


@pytest.mark.parametrize("command", ["fit", "params"])
def test_a_kernel_of_the_hub_is_code_of_a_backbone(
    command: str, tiny_arguments: list[str], tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_backbone, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attn_implementation": "someone/kernel"}))
    assert "kernels" in refused([command, *tiny_arguments, f"--model.backbone.path={folder}"], capsys)


@pytest.mark.parametrize("command", ["fit", "params"])
def test_code_in_the_folder_of_a_backbone_is_not_run(
    command: str, tiny_arguments: list[str], tiny_backbone: Path, marker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = marker.with_name("backbone")
    shutil.copytree(tiny_backbone, folder)
    shutil.copy(marker.parent / "packages" / "planted.py", folder / "planted.py")
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        classes = {"AutoConfig": "planted.Thing", "AutoModelForCausalLM": "planted.Thing"}
        content |= {"model_type": "unknown_type", "auto_map": {**classes, "AutoTokenizer": ["planted.Thing", None]}}
        (folder / name).write_text(json.dumps(content))
    refused([command, *tiny_arguments, f"--model.backbone.path={folder}"], capsys)
    assert not marker.exists()


# ---------------------------------------------------------------------------------------------- classes of the user


def test_classes_of_the_user_are_imported_and_named(
    marker: Path, tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = marker.parent / "packages" / "own_callbacks.py"
    own.write_text("from lightning.pytorch.callbacks import Callback\nclass Mine(Callback):\n    pass\n")
    short = ["--trainer.max_steps", "1", "--run.score_base", "false", "--run.score_report", "false"]
    assert main(["fit", *tiny_arguments, *short, "--trainer.callbacks+=own_callbacks.Mine"]) == 0
    assert "classes of other packages: own_callbacks.Mine" in capsys.readouterr().out
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert record["other_classes"] == ["own_callbacks.Mine"]


def test_the_flag_is_not_a_setting(marker: Path, tiny_arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    file = marker.with_name("flag.yaml")
    file.write_text("allow_classes: planted\n")
    assert "unknown key 'allow_classes'" in refused(["fit", *tiny_arguments, "--config", str(file)], capsys)


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_file_runs_no_code(
    name: str, marker: Path, tiny_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    like = marker.with_name("like.yaml")
    like.write_text(yaml.safe_dump({"model": {"adapter": attacks(marker)[name]}}))
    for command in ("fit", "params"):
        refused([command, *tiny_arguments, f"--model.budget.like={like}"], capsys)
    assert not marker.exists()


# ------------------------------------------------------------------------------------------------- adapter folders


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

"""No file makes a command run code: settings take classes that fit, and checkpoints and adapters only trusted ones."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from smoa_lightning.__main__ import main

from ..runs import only_run
from .commands import refused


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
    text = refused(
        ["params", *tiny_arguments[:2], "--config", str(file), "--model.backbone.source=embedded", "--no_memory"],
        capsys,
    )
    assert "megatron" in text
    assert not marker.exists()


# ------------------------------------------------------------------------------------------------- checkpoints


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

"""Files of a run that were changed, cut or replaced: each command says so in one sentence and uses nothing of them."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from smoa_lightning.__main__ import main
from smoa_lightning.common.checksums import write_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.training.adapter_folder import load_adapter, read_adapter_facts
from smoa_lightning.training.checkpoint import read_checkpoint

CHECKPOINTS, ADAPTER = "checkpoints/current", "adapter/best"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run that a test may damage."""
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def flipped(file: Path) -> Iterator[None]:
    """Change one byte of a file at 50 places, one at a time; at the end the file is as it was."""
    content = file.read_bytes()
    for place in random.Random(0).sample(range(len(content)), 50):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        yield
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_each_changed_byte_of_a_checkpoint_is_found(name: str, run: Path) -> None:
    for _ in flipped(run / CHECKPOINTS / name):
        with pytest.raises(UserError, match=f"{name}' is damaged: its checksum is wrong"):
            read_checkpoint(run / "checkpoints" / name)
    read_checkpoint(run / "checkpoints" / name)


def test_a_changed_byte_in_the_list_of_checksums_is_found_or_harmless(run: Path) -> None:
    """The list holds nothing but names and checksums: a damaged one cannot make another file look right."""
    found = 0
    for _ in flipped(run / CHECKPOINTS / "files.json"):
        try:
            read_checkpoint(run / "checkpoints" / "best.ckpt")  # this file is intact
        except UserError:
            found += 1
    assert found
    (run / CHECKPOINTS / "files.json").write_text("[]")
    with pytest.raises(UserError, match="is damaged"):
        read_checkpoint(run / "checkpoints" / "best.ckpt")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_each_changed_byte_of_an_adapter_is_found(name: str, run: Path) -> None:
    for _ in flipped(run / ADAPTER / name):
        with pytest.raises(UserError, match=f"{name} is damaged or was changed"):
            read_adapter_facts(run / ADAPTER)
    read_adapter_facts(run / ADAPTER)


def test_a_changed_byte_in_the_facts_of_an_adapter_is_found_or_harmless(run: Path) -> None:
    """Harmless are white space, and the name of the checksum: without it the facts are as they were."""
    expected, found = read_adapter_facts(run / ADAPTER), 0
    for _ in flipped(run / ADAPTER / "smoa_lightning.json"):
        try:
            facts = read_adapter_facts(run / ADAPTER)
        except UserError:
            found += 1
        else:
            assert {key: facts[key] for key in expected if key != "digest"} == {
                key: value for key, value in expected.items() if key != "digest"
            }
    assert found > 40


@pytest.mark.parametrize(("key", "value"), [("alpha", 64), ("partition", "none"), ("target_modules", ["q_proj"])])
def test_an_edited_config_of_an_adapter_is_refused(key: str, value: object, run: Path) -> None:
    file = run / ADAPTER / "adapter_config.json"
    config = json.loads(file.read_text())
    assert config[key] != value
    file.write_text(json.dumps(config | {key: value}, indent=2))
    with pytest.raises(UserError, match=r"adapter_config\.json is damaged or was changed"):
        load_adapter(run)


def test_a_resumed_run_compares_all_files_of_its_checkpoint_first(
    run: Path, short_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((run / "record.json").read_text())
    write_sealed(run / "record.json", record | {"status": "failed"})
    for name in ("adapter/best/adapter_model.safetensors", "best.ckpt"):
        file = run / CHECKPOINTS / name
        content = file.read_bytes()
        file.unlink()  # the adapters of a finished run are hard links to these files
        file.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
        capsys.readouterr()
        assert main(["fit", *short_arguments, "--trainer.log_every_n_steps", "1", "--run.folder", str(run)]) == 2
        one_sentence(capsys, f"{name}' is damaged: its checksum is wrong")
        file.write_bytes(content)


# ---- truncated, empty and foreign files

CONFIG = {"config": {"model": {}, "data": {}}}
FOREIGN = {
    "tensor": (torch.zeros(3), "it holds a value of type Tensor instead of a mapping"),
    "int": (7, "it holds a value of type int instead of a mapping"),
    "none": (None, "it holds a value of type NoneType instead of a mapping"),
    "text": ("config", "it holds a value of type str instead of a mapping"),
    "list": (["config"], "it holds a value of type list instead of a mapping"),
    "weights": ({"weight": torch.zeros(3)}, "it has no configuration"),
    "text as configuration": ({"config": "model data"}, "it has no configuration"),
    "empty configuration": ({"config": {}}, "its configuration has no settings of model and data"),
    "texts as settings": ({"config": {"model": "a", "data": "b"}}, "its configuration has no settings"),
    "tensors as settings": (
        {"config": {"model": {}, "data": {"a": [torch.zeros(3)]}}},
        "its configuration holds other",
    ),
    "numbers as names": ({"config": {"model": {}, "data": {3: 4}}}, "its configuration holds other values"),
    "a backbone of tensors": (CONFIG | {"backbone": {"a": torch.zeros(3)}}, "its configuration holds other values"),
    "a number as backbone": (CONFIG | {"state_dict": {}, "backbone": 5}, "its backbone is no mapping"),
    "no tensors": (CONFIG, "it has no state_dict of tensors"),
    "numbers as tensors": (CONFIG | {"state_dict": {"a": 1}}, "it has no state_dict of tensors"),
    "no step": (CONFIG | {"state_dict": {}}, "it has no global_step"),
    "step as text": (CONFIG | {"state_dict": {}, "global_step": "1"}, "it has no global_step"),
    "no version": (CONFIG | {"state_dict": {}, "global_step": 1}, "its version of Lightning is None"),
    "odd version": (
        CONFIG | {"state_dict": {}, "global_step": 1, "pytorch-lightning_version": "x"},
        "its version of Lightning is 'x'",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_checkpoint_is_one_sentence(
    name: str, short_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, reason = FOREIGN[name]
    file = tmp_path / "foreign.ckpt"
    torch.save(content, file)
    with pytest.raises(UserError, match=f"foreign.ckpt' was not written by smoa_lightning: {reason}"):
        read_checkpoint(file)
    for command in (["test"], ["fit", *short_arguments]):
        assert main([*command, "--ckpt_path", str(file), "--run.root", str(tmp_path / "runs")]) == 2
        one_sentence(capsys, reason)


class Odd:
    """Something whose pickle holds odd instructions."""

    def __init__(self, *reduced: object) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


@pytest.mark.parametrize(
    "odd",
    [
        Odd(OrderedDict, (3,)),
        Odd(torch.Size, ("a", "b")),
        Odd(OrderedDict, (), {"a": 1}),
        Odd(OrderedDict, (), None, None, iter([([], 1)])),
        Odd(torch.device, ("nowhere",)),
        Odd(print, ("x",)),
    ],
)
def test_an_odd_pickle_is_one_sentence(odd: Odd, tmp_path: Path) -> None:
    file = tmp_path / "odd.ckpt"
    torch.save({"config": odd}, file)
    with pytest.raises(UserError, match=r"odd\.ckpt' is damaged: .|was not written by smoa_lightning"):
        read_checkpoint(file)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def array(file: Path) -> None:
    file.write_text("[]")


def pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps({"config": print}))


def missing(file: Path) -> None:
    file.unlink()


def as_bin(file: Path) -> None:
    """Weights in a file that may hold code."""
    file.with_name("adapter_model.bin").write_bytes(pickle.dumps({"config": print}))
    file.unlink()


def one_sentence(capsys: pytest.CaptureFixture[str], name: str) -> None:
    error = capsys.readouterr().err
    assert "Traceback" not in error
    (said,) = [line for line in error.splitlines() if line.startswith("smoa_lightning: ")]
    assert name in said


@pytest.mark.parametrize("damage", [cut, empty, array, pickled, missing])
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "of an earlier version"])
def test_commands_refuse_a_checkpoint_that_is_none(
    listed: bool,
    damage: Callable[[Path], None],
    run: Path,
    short_arguments: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = run / "checkpoints" / "current" / "best.ckpt"
    if not listed:
        (run / "checkpoints" / "current" / "files.json").unlink()
    damage(file)
    for command in ("test", "validate", "predict"):
        capsys.readouterr()
        assert main([command, "--ckpt_path", str(file), "--run.root", str(run.parent / "runs")]) == 2
        one_sentence(capsys, "best.ckpt")
    assert main(["fit", *short_arguments, "--ckpt_path", str(file), "--run.root", str(run.parent / "runs")]) == 2
    one_sentence(capsys, "best.ckpt")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("adapter_model.safetensors", damage) for damage in (cut, empty, array, pickled, missing, as_bin)),
        *(("adapter_config.json", damage) for damage in (cut, empty, array, pickled, missing)),
        *(("smoa_lightning.json", damage) for damage in (cut, empty, array, pickled, missing)),
    ],
)
@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "of an earlier version"])
def test_commands_refuse_an_adapter_that_is_none(
    sealed: bool, name: str, damage: Callable[[Path], None], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run / ADAPTER
    facts = json.loads((folder / "smoa_lightning.json").read_text())
    if not sealed:
        (folder / "smoa_lightning.json").write_text(
            json.dumps({key: value for key, value in facts.items() if key not in ("digest", "sha256")})
        )
    damage(folder / name)
    with pytest.raises(UserError) as raised:
        load_adapter(folder)
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)
    for command in (["generate", str(folder), "--prompt", "x"], ["rank", str(folder)]):
        capsys.readouterr()
        assert main(command) == 2, command
        one_sentence(capsys, str(folder))

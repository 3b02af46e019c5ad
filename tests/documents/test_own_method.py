"""The method of the tutorial passes the tests of the tutorial, and a layer of a module without a package has a name."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from torch import nn

from smoa_lightning.adapters.attach import attach
from smoa_lightning.adapters.mora import MoraConfig
from smoa_lightning.adapters.own_methods import try_own_layers
from smoa_lightning.adapters.rank import layer_update
from smoa_lightning.adapters.tuner import register_method
from smoa_lightning.common.errors import UserError

from .blocks import blocks

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "own_method.md"
NAMES = ("core_adapter", "test_core_adapter")
MAPPINGS = (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING)


def forget_the_method() -> None:
    """Forget the modules of the tutorial and the method that they have registered."""
    for name in NAMES:
        sys.modules.pop(name, None)
    for mapping in MAPPINGS:
        mapping.pop("CORE", None)


@pytest.fixture
def _files_of_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for block in blocks(TUTORIAL):
        if block.title in [f"{name}.py" for name in NAMES]:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    forget_the_method()


@pytest.mark.usefixtures("_files_of_the_tutorial")
def test_the_method_of_the_tutorial_passes_its_tests(tmp_path: Path) -> None:
    module = importlib.import_module("test_core_adapter")
    module.test_core_adapters(tmp_path / "saved")
    assert repr(module.adapted().base_model.model[0]).startswith("core_adapter.CoreLinear(")


@pytest.mark.usefixtures("_files_of_the_tutorial")
def test_classes_that_are_made_for_a_method_can_be_pickled() -> None:
    module = importlib.import_module("core_adapter")
    config = pickle.loads(pickle.dumps(module.CoreConfig(r=3)))
    assert (config.r, config.peft_type.value) == (3, "CORE")
    assert pickle.loads(pickle.dumps(module.CoreLinear.Model)) is module.CoreLinear.Model


@pytest.mark.usefixtures("_files_of_the_tutorial")
def test_names_that_peft_would_not_save_are_refused() -> None:
    module = importlib.import_module("core_adapter")
    with pytest.raises(UserError, match="CoreLinear: the name 'core_r' must begin with 'mine_'"):
        register_method("MINE", module.CoreConfig, module.CoreLinear)


@pytest.mark.usefixtures("_files_of_the_tutorial")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LORA", r"'LORA' is the name of the method of peft\.tuners\.lora\.config\.LoraConfig: choose another name"),
        ("SMOA", r"'SMOA' is the name of the method of smoa_lightning\."),
        ("Core", "the name 'Core' must be in capital letters: 'CORE'"),
    ],
)
def test_names_of_other_methods_are_refused(name: str, message: str) -> None:
    module, known = importlib.import_module("core_adapter"), dict(PEFT_TYPE_TO_CONFIG_MAPPING)
    with pytest.raises(UserError, match=message):
        register_method(name, module.CoreConfig, module.CoreLinear)
    assert known == PEFT_TYPE_TO_CONFIG_MAPPING


@pytest.mark.usefixtures("_files_of_the_tutorial")
def test_a_class_that_is_defined_again_is_registered_again() -> None:
    first = importlib.import_module("core_adapter")
    again = importlib.reload(first)
    assert PEFT_TYPE_TO_CONFIG_MAPPING["CORE"] is again.CoreConfig  # type: ignore[index]


def _changed(tmp_path: Path, old: str, new: str) -> None:
    """Replace words of the tutorial's method."""
    file = tmp_path / "core_adapter.py"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.usefixtures("_files_of_the_tutorial")
@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("rank_bound", "an upper bound of the rank of D"),
        ("dense_update", r"the additive update D of shape \(out_features, in_features\)"),
        ("product", "``x D"),
        ("initial_parameters", "container -> initial values"),
    ],
)
def test_a_method_that_is_missing_is_named(name: str, meaning: str, tmp_path: Path) -> None:
    _changed(tmp_path, f"def {name}(", f"def _not_{name}(")
    with pytest.raises(
        UserError, match=f"CoreLinear has no method {name}, which every UpdateLayer needs: it returns {meaning}"
    ):
        importlib.import_module("core_adapter")


@pytest.mark.usefixtures("_files_of_the_tutorial")
def test_a_layer_without_trained_tensors_is_refused(tmp_path: Path) -> None:
    _changed(tmp_path, '("core_r",)  # trained, saved', "()")
    with pytest.raises(UserError, match=r"CoreLinear\.adapter_layer_names is empty: list the names of its trained"):
        importlib.import_module("core_adapter")


@pytest.mark.usefixtures("_files_of_the_tutorial")
def test_a_method_that_is_not_registered_is_refused(tmp_path: Path) -> None:
    _changed(tmp_path, 'register_method("CORE", CoreConfig, CoreLinear)', "")
    module = importlib.import_module("core_adapter")
    with pytest.raises(
        UserError, match=r"^CoreConfig is not registered: call register_method\('CORE', CoreConfig, LAYER\) at the end"
    ):
        attach(nn.Sequential(nn.Linear(3, 2)), module.CoreConfig(target_modules=["0"]), seed=0)


def test_a_peft_config_without_a_type_is_refused() -> None:
    with pytest.raises(UserError, match=r"^PeftConfig is not registered: register it with peft\.register_peft_method$"):
        attach(nn.Sequential(nn.Linear(3, 2)), PeftConfig(), seed=0)


@pytest.mark.usefixtures("_files_of_the_tutorial")
def test_an_update_of_a_wrong_shape_is_refused_where_it_is_read(tmp_path: Path) -> None:
    _changed(tmp_path, "return b @ r @ a", "return (b @ r @ a).T")
    module = importlib.import_module("core_adapter")
    model = attach(nn.Sequential(nn.Linear(3, 2)), module.CoreConfig(r=1, target_modules=["0"]), seed=0)
    layer = model.get_base_model()[0]  # type: ignore[index]
    message = (
        r"^CoreLinear\.dense_update returns shape \(3, 2\) for layer 0, but must return \(out_features, in_features\) "
        r"= \(2, 3\); it may be transposed$"
    )
    for read in (
        lambda: layer_update(layer, "default"),
        lambda: layer.get_delta_weight("default"),
        model.merge_adapter,
    ):
        with pytest.raises(UserError, match=message):
            read()


@pytest.mark.usefixtures("_files_of_the_tutorial")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return b @ r @ a", "return (b @ r @ a).T", r"dense_update returns shape \(3, 2\) for layer 0"),
        ("return b @ r @ a", "return b @ r", r"dense_update returns shape \(2, 1\) for layer 0"),
        (
            "return x @ a.T @ r.T @ b.T",
            "return x @ a.T @ r.T",
            r"^CoreLinear\.product returns shape \(2, 1\) for inputs of shape \(2, 3\) at layer 0, but must return",
        ),
        (
            "return x @ a.T @ r.T @ b.T",
            "return x @ a @ r @ b",
            r"^CoreLinear\.product fails for inputs of shape \(2, 3\) at layer 0: .*shapes? cannot be multiplied",
        ),
    ],
)
def test_wrong_shapes_are_refused_before_a_run(old: str, new: str, message: str, tmp_path: Path) -> None:
    _changed(tmp_path, old, new)
    module = importlib.import_module("core_adapter")
    with torch.device("meta"):
        base = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model = attach(base, module.CoreConfig(r=1, target_modules=["0", "1"]), seed=0)
    with pytest.raises(UserError, match=message):
        try_own_layers(model)


@pytest.mark.usefixtures("_files_of_the_tutorial")
@pytest.mark.parametrize(("start", "warned"), [("torch.zeros", False), ("torch.ones", True), ("torch.randn", True)])
def test_a_start_with_an_effect_is_warned_of(
    start: str, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _changed(tmp_path, "torch.zeros", start)
    module = importlib.import_module("core_adapter")
    try_own_layers(attach(nn.Sequential(nn.Linear(3, 2)), module.CoreConfig(r=1, target_modules=["0"]), seed=0))
    assert ("CoreLinear has an effect before training: the update of layer 0 has norm" in caplog.text) is warned


def test_layers_of_this_package_may_start_with_an_effect(caplog: pytest.LogCaptureFixture) -> None:
    model = attach(nn.Sequential(nn.Linear(4, 4)), MoraConfig(r=1, target_modules=["0"]), seed=0)
    model.get_base_model()[0].mora_M["default"].data.fill_(1)  # type: ignore[index]
    try_own_layers(model)
    assert not caplog.text

"""The method of the tutorial passes the tests of the tutorial, and a layer of a module without a package has a name."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from smoa_lightning.adapters.tuner import register_method
from smoa_lightning.common.errors import UserError

from .blocks import blocks

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "own_method.md"
NAMES = ("core_adapter", "test_core_adapter")
MAPPINGS = (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING)


@pytest.fixture
def _files_of_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for block in blocks(TUTORIAL):
        if block.title in [f"{name}.py" for name in NAMES]:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in NAMES:
        sys.modules.pop(name, None)
    for mapping in MAPPINGS:
        mapping.pop("CORE", None)


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

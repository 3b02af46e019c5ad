"""An adapter of a method that a package of the user's registers with peft."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from smoa_lightning.common.allowed_classes import allowing
from smoa_lightning.common.errors import UserError
from smoa_lightning.training.other_methods import register_method

MODULE = """
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

PEFT_TYPE_TO_CONFIG_MAPPING["MINE"] = object
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An adapter folder of the method MINE, next to the package that registers it."""
    (tmp_path / "my_methods.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "MINE"}), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_methods", raising=False)
    monkeypatch.setitem(PEFT_TYPE_TO_CONFIG_MAPPING, "MINE", object)  # so that its end is undone
    del PEFT_TYPE_TO_CONFIG_MAPPING["MINE"]
    return tmp_path


def test_only_an_allowed_package_is_imported(folder: Path) -> None:
    with pytest.raises(UserError, match=r"method 'MINE', which peft does not know: .*--allow_classes PACKAGE"):
        register_method(folder)
    assert "my_methods" not in sys.modules
    with allowing(["my_methods"]):
        register_method(folder)
    assert "MINE" in PEFT_TYPE_TO_CONFIG_MAPPING


def test_an_allowed_package_that_does_not_exist_is_named(folder: Path) -> None:
    with (
        allowing(["nowhere"]),
        pytest.raises(UserError, match="--allow_classes nowhere: the package cannot be imported"),
    ):
        register_method(folder)


def test_a_known_method_and_a_full_model_import_nothing(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    with allowing(["my_methods"]):
        register_method(folder)
        (folder / "adapter_config.json").unlink()
        register_method(folder)
    assert "my_methods" not in sys.modules

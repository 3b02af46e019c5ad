"""Mistakes around classes of the user: one sentence with file, line and the nearest class or key, before any work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration import check_arguments, with_full_keys
from smoa_lightning.configuration.describe import describe

OWN = """
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch.callbacks import Callback
from peft import PeftConfig


@dataclass
class CoreConfig(PeftConfig):
    r: int = 16
    alpha: float | None = None
    kind: Literal["dense", "thin"] = "dense"
    sizes: list[int] | None = None
    anything: "Callback | None" = None


class Steps(torch.optim.AdamW):
    def __init__(self, params, lr: float = 1e-3, gamma: float = 0.5):
        super().__init__(params, lr=lr)


class Watch(Callback):
    def __init__(self, every: int = 1):
        self.every = every


class Quiet(Callback):
    pass


class Often(Callback):
    def __init__(self, every: int = None):
        self.every = every


def function():
    pass
"""


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_parts.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("class CoreConfig(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own_parts", None)


ADAPTER = "model:\n  adapter:\n    class_path: own_parts.CoreConfig\n    init_args:\n      "
OPTIMIZER = "model:\n  optimizer:\n    class_path: own_parts.Steps\n    init_args:\n      "
CALLBACK = "trainer:\n  callbacks:\n    - class_path: own_parts.Watch\n      init_args: "
REFUSED = [
    (
        f"{ADAPTER}rr: 3\n",
        "unknown key 'model.adapter.rr' of own_parts.CoreConfig; the nearest keys are model.adapter.r,",
    ),
    (f"{ADAPTER}r: big\n", "line 5: model.adapter.init_args.r is 'big', but takes a whole number"),
    (f"{ADAPTER}alpha: [1]\n", "line 5: model.adapter.init_args.alpha is [1], but takes a number or null"),
    (f"{ADAPTER}kind: thick\n", "kind is 'thick', but takes dense or thin; the nearest is thin"),
    (f"{ADAPTER}sizes: 3\n", "sizes is 3, but takes null or a list"),
    (f"{OPTIMIZER}gama: 3\n", "'model.optimizer.gama' of own_parts.Steps; the nearest keys are model.optimizer.gamma"),
    (f"{OPTIMIZER}gamma: x\n", "line 5: model.optimizer.init_args.gamma is 'x', but takes a number"),
    (f"{OPTIMIZER}params: 1\n", "unknown key 'model.optimizer.params' of own_parts.Steps"),
    (
        f"{CALLBACK}{{evry: 3}}\n",
        "'trainer.callbacks.evry' of own_parts.Watch; the nearest key is trainer.callbacks.ever",
    ),
    (f"{CALLBACK}{{every: x}}\n", "trainer.callbacks.init_args.every is 'x', but takes a whole number"),
    ("trainer.callbacks: [{class_path: own_parts.Quiet, init_args: {a: 1}}]\n", "Quiet, which has no settings"),
    ("trainer.callbacks: [{class_path: own_parts.Quiet, init_args: abc}]\n", "Quiet is 'abc', but must be a mapping"),
    ("trainer.callbacks: [{class_path: own_parts.Quiet, init_args: [1]}]\n", "Quiet is [1], but must be a mapping"),
    ("model.adapter.class_path: own_parts.CoreCnfig\n", "class 'own_parts.CoreCnfig'; the nearest is CoreConfig"),
    ("model.optimizer.class_path: own_parts.Step\n", "there is no class 'own_parts.Step'; the nearest is Steps"),
    ("trainer.callbacks: [own_parts.Wach]\n", "there is no class 'own_parts.Wach'; the nearest is Watch"),
    (
        "model.adapter.class_path: own_part.CoreConfig\n",
        "line 1: model.adapter: cannot import 'own_part.CoreConfig': No module named 'own_part'; the nearest file here "
        "is own_parts.py; for a file of yours, put its folder into the environment variable PYTHONPATH",
    ),
    ("model.optimizer.class_path: zzz.Steps\n", "No module named 'zzz'; for a file of yours, put its folder into"),
    ("model.adapter.class_path: own_broken.CoreConfig\n", "'own_broken.CoreConfig': invalid syntax (own_broken.py, l"),
    ("model.adapter.class_path: own_parts.Steps\n", "is not a class for it; it takes classes derived from peft.PeftC"),
    ("model.optimizer.class_path: own_parts.Watch\n", "it takes classes derived from torch.optim.Optimizer"),
    ("trainer.callbacks: own_parts.Steps\n", "it takes classes derived from lightning.pytorch.Callback"),
    ("model.adapter.class_path: own_parts.function\n", "'own_parts.function' is not a class; it takes a class"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_mistakes_in_a_file_are_one_sentence(text: str, words: str, tmp_path: Path, fit_parser: Any) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        check_arguments("fit", ["--config", str(file)])
    assert str(refused.value).startswith(f"{file}, line ")
    assert words in str(refused.value)
    with pytest.raises(UserError) as later:
        fit_parser.parse_args(["fit", "--config", str(file)])
    assert "Union subtypes" not in str(later.value)


@pytest.mark.parametrize(
    "text",
    [
        f"{ADAPTER}r: 3\n      alpha: null\n      kind: thin\n      sizes: [1, 2]\n",
        f"{ADAPTER}alpha: 3\n      anything: {{class_path: own_parts.Watch}}\n",
        f"{ADAPTER}r: '3'\n",
        f"{OPTIMIZER}gamma: 1\n",
        f"{CALLBACK}{{every: 3}}\n",
        "trainer.callbacks: [own_parts.Watch, {class_path: own_parts.Quiet}]\n",
        "trainer.callbacks: [{class_path: own_parts.Often, init_args: {every: null}}]\n",
    ],
)
def test_what_the_full_parser_takes_passes(text: str, tmp_path: Path, fit_parser: Any) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    check_arguments("fit", ["--config", "settings.yaml"])
    fit_parser.parse_args(["fit", "--config", "settings.yaml"])


def test_flags_are_checked_too_and_may_be_short() -> None:
    own = ["--model.adapter", "own_parts.CoreConfig"]
    assert with_full_keys("fit", [*own, "--kind", "thin"]) == [*own, "--model.adapter.kind", "thin"]
    check_arguments("fit", [*own, "--model.adapter.kind=thin", "--trainer.callbacks+=own_parts.Watch"])
    for flag, words in [
        ("--model.adapter.r=x", "r is 'x', but"),
        ("--model.adapter.knd=thin", "model.adapter.kind"),
        ("--knd=thin", "model.adapter.kind"),
    ]:
        with pytest.raises(UserError, match=words):
            check_arguments("fit", [*own, flag])


def test_help_imports_no_class_of_the_user() -> None:
    describe("fit", ["--model.adapter", "own_parts.CoreConfig"])
    assert with_full_keys("fit", ["--model.adapter", "own_parts.CoreConfig", "--lr", "1", "-h"])
    assert "own_parts" not in sys.modules

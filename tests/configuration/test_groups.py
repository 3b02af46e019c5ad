"""Groups of settings without settings, and ``+`` after a setting that is no list."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration import check_arguments, expand_bases
from smoa_lightning.configuration.composition import Composer

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model:\n", "line 1: model is empty, but is a group of settings: write each of them as 'key: value'"),
        ("seed_everything: 1\ndata: null\n", "line 2: data is empty"),
        ("model: 5\n", "line 1: model is 5"),
        ("trainer:\n- max_epochs: 1\n", "line 1: trainer is [{'max_epochs': 1}]"),
        ("pictures: false\n", "line 1: pictures is False"),
        *((f"{name}:\n", f"line 1: {name} is empty") for name in ("run", "forgetting", "checkpoint", "rank_monitor")),
    ],
)
def test_a_group_without_settings_is_refused(text: str, words: str, tmp_path: Path) -> None:
    """The full parser takes it, and forgets the group of the file before: a run of its defaults."""
    file = tmp_path / "settings.yaml"
    file.write_text(f"base: {EXPERIMENTS / 'piqa.yaml'}\n{text}")
    number = int(words[5]) + 1
    words = f"settings.yaml, line {number}{words[6:]}"
    for command in ("fit", "params"):
        with pytest.raises(UserError, match=re.escape(words)):
            check_arguments(command, ["--config", str(file)])
    with pytest.raises(UserError, match=re.escape(words)):
        Composer().settings([file])


@pytest.mark.parametrize("text", ["model: {}\n", "data: {}\ntrainer: {}\n"])
def test_a_group_of_no_settings_changes_nothing(text: str, fit_parser: Any, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"base: {EXPERIMENTS / 'piqa.yaml'}\n{text}")
    plain, taken = (
        fit_parser.parse_args(["fit", *expand_bases(["--config", str(path)])]).fit
        for path in (EXPERIMENTS / "piqa.yaml", file)
    )
    for group in ("model", "data", "trainer"):
        assert taken[group] == plain[group]


@pytest.mark.parametrize("key", ["model.adapter.r", "data.batch_size", "model.optimizer.lr", "data.limit_train_rows"])
def test_a_plus_after_a_setting_that_is_no_list_is_refused(key: str, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(f"base: {EXPERIMENTS / 'piqa.yaml'}\n{key}+: 4\n")
    for words in (
        ["--config", str(EXPERIMENTS / "piqa.yaml"), f"--{key}+", "4"],
        ["--config", f"{tmp_path}/settings.yaml"],
    ):
        with pytest.raises(UserError, match=f"{re.escape(key)} takes one value: write it without \\+"):
            check_arguments("fit", words)

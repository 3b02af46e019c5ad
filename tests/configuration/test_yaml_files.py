"""YAML files that contain themselves, or too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration import expand_bases
from smoa_lightning.configuration.yaml_files import read_yaml

BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: &d\n  fields: *d\n", "line 1: the value contains itself through an alias"),
        ("a: &a [1, *a]\n", "line 1: the value contains itself"),
        ("a: &a\n  <<: *a\n", "the value contains itself"),
        (BOMB, "with its aliases it has 125479 values, but at most 100000"),
    ],
)
def test_files_without_end_are_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=words) as refused:
        read_yaml(tmp_path / "x.yaml", "--config")
    assert str(refused.value).count("\n") == 0


def test_aliases_that_end_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: &a {b: 1}\nc: [*a, *a]\nd: {<<: *a, e: 2}\n")
    assert read_yaml(tmp_path / "x.yaml", "").value == {"a": {"b": 1}, "c": [{"b": 1}] * 2, "d": {"b": 1, "e": 2}}


def test_a_file_that_is_its_own_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("base: x.yaml\n")
    with pytest.raises(UserError, match=r"base is .x\.yaml., which is this file itself"):
        expand_bases(["--config", str(tmp_path / "x.yaml")])

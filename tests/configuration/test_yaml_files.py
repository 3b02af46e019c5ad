"""YAML files: their bases, keys that appear twice, and files that contain themselves or too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration import check_arguments, expand_bases
from smoa_lightning.configuration.yaml_files import read_yaml

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
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


def test_bases_are_named_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    assert len(expand_bases(["--config", str(tmp_path / "a.yaml")])) == 6  # the circle is cut where it closes


def test_flags_override_files_wherever_they_stand(tmp_path: Path) -> None:
    for name, rate in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.yaml").write_text(f"model: {{head_lr: {rate}}}\n")
    files = [word for name in "ab" for word in ("--config", str(tmp_path / f"{name}.yaml"))]
    first = ["fit", "--model.head_lr", "3", *files, "--data.seed=1"]
    assert expand_bases(first) == ["fit", *files, "--model.head_lr", "3", "--data.seed=1"]
    between = [*files[:2], "--model.head_lr", "3", f"--config={files[3]}"]
    assert expand_bases(between) == [*files, "--model.head_lr", "3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:\n  batch_size: 8\ndata:\n  seed: 3\n", "line 3: the key 'data' appears twice; the first is in line 1"),
        ("data:\n  seed: 8\n  seed: 8\n", "line 3: the key 'seed' appears twice; the first is in line 2"),
        ("data: {fields: {goal: a, goal: b}}\n", "line 1: the key 'goal' appears twice; the first is in line 1"),
    ],
)
def test_a_key_that_appears_twice_in_a_file(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    (tmp_path / "upper.yaml").write_text("base: own.yaml\n")
    for name in ("own.yaml", "upper.yaml"):
        with pytest.raises(UserError, match=rf"own\.yaml, {message}"):
            check_arguments("fit", ["--config", str(EXPERIMENTS / "piqa.yaml"), "--config", str(tmp_path / name)])


@pytest.mark.parametrize(
    ("flag", "text"),
    [("data.fields", "{goal: a, goal: b}"), ("data.mixture", '{"goal": 1, "goal": 2}'), ("data", "{goal: 1, goal: 2}")],
)
def test_a_key_that_appears_twice_in_a_flag(flag: str, text: str) -> None:
    with pytest.raises(UserError, match=rf"^--{flag}, line 1: the key 'goal' appears twice"):
        check_arguments("fit", [f"--{flag}", text])


def test_a_base_that_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("base: [a.yaml, b.yaml]\n")
    with pytest.raises(
        UserError, match=r"own\.yaml: base is \['a\.yaml', 'b\.yaml'\], but must be the name of one file"
    ):
        expand_bases(["--config", str(tmp_path / "own.yaml")])

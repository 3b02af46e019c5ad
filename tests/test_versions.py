"""Versions that stand in several files agree."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from smoa_lightning import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_citation_names_the_version_of_the_package() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == __version__


def test_the_workflow_tries_every_python_that_is_declared() -> None:
    declared = {line.split(" :: ")[-1] for line in PROJECT["classifiers"] if line.startswith("Programming Language")}
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    tried = {job["python"] for job in workflow["jobs"]["tests"]["strategy"]["matrix"]["include"]}
    assert tried == declared - {"3"}
    assert all(SpecifierSet(PROJECT["requires-python"]).contains(version) for version in tried)


def test_pinned_versions_are_in_the_declared_ranges() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines if not line.startswith("#"))
    wanted = [*PROJECT["dependencies"], *(one for group in PROJECT["optional-dependencies"].values() for one in group)]
    for requirement in map(Requirement, wanted):
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


def test_only_constraints_decide_which_ruff_checks() -> None:
    """Pre-commit runs the installed tools, so no second version stands in its file."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert {repository["repo"] for repository in hooks} == {"local"}

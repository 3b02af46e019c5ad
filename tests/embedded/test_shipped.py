"""The package ships its data files and needs none of the tools that made them."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "smoa_lightning"


def test_every_data_file_is_package_data():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["packages"]["find"]["include"] == ["smoa_lightning*"]
    shipped = {file for pattern in settings["package-data"]["smoa_lightning"] for file in PACKAGE.glob(pattern)}
    files = {file for file in (PACKAGE / "embedded").rglob("*") if file.is_file()}
    data = {file for file in files if file.suffix not in (".py", ".pyc")}
    assert len(data) > 50
    assert sorted(data - shipped) == []


def test_the_package_imports_no_tool():
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not any(name.split(".")[0] == "tools" for name in names), file

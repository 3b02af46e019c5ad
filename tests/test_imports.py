"""Imports point downward, and light modules import nothing heavy."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from tools import architecture

PACKAGE = Path(__file__).parents[1] / "smoa_lightning"

ROOMS = [  # from the lowest floor to the highest: a room imports from lower floors only
    ("version", "common"),
    ("embedded", "records"),
    ("configuration", "backbones"),
    ("adapters", "data"),
    ("evaluation",),
    ("objectives",),
    ("training",),
    ("ablation",),
    ("commands",),
    ("__main__",),
]
LAYERS = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
# What only a worker of a study, or its plan, imports.
WORKERS = {f"ablation/planning/{name}.py" for name in ("build_cell", "estimate", "probe")} | {
    f"ablation/execution/{name}.py" for name in ("aggregate", "devices", "fitting", "pruning", "worker")
}
FORBIDDEN = {
    "evaluation/scoring": {"lightning", "transformers", "peft"},
    "evaluation/decoding": {"lightning", "peft"},
    "evaluation/text": {"lightning", "peft"},
    "training/schedule": {"lightning", "transformers", "peft", "torch"},
    "adapters/smoa/subspaces": {"lightning", "transformers", "peft"},
    "adapters/smoa/functional": {"lightning", "transformers", "peft"},
    "adapters/smoa/terms": {"lightning", "transformers", "peft"},
    "adapters/mora/compress": {"lightning", "transformers", "peft"},
    "adapters/surm/structured": {"lightning", "transformers", "peft"},
    "adapters/surm/convolution": {"lightning", "transformers", "peft"},
    **{
        p.relative_to(PACKAGE).with_suffix("").as_posix(): {"lightning", "transformers", "peft", "torch"}
        for folder in ("common", "records", "configuration", "ablation")
        for p in PACKAGE.glob(f"{folder}/**/*.py")
        if p.relative_to(PACKAGE).as_posix() not in {*WORKERS, "common/fast_imports.py", "configuration/parser.py"}
    },
}

LIGHT = [
    *("smoa_lightning", "smoa_lightning.records.record", "smoa_lightning.embedded", "smoa_lightning.configuration"),
    *("smoa_lightning.ablation.statistics", "smoa_lightning.ablation.study.expand"),
]


def unit(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in ast.walk(node):
                child.ignored = True  # type: ignore[attr-defined]
        if getattr(node, "ignored", False):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def test_imports_point_downward() -> None:
    wrong = []
    for path in FILES:
        here = unit(path)
        for name in imported(path):
            parts = name.split(".")
            ours = parts[0] == "smoa_lightning" and len(parts) > 1 and parts[1] in LAYERS and parts[1] != here
            if ours and LAYERS[parts[1]] >= LAYERS[here]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}, which is not below it")
    assert not wrong


def test_rooms_inside_data_and_ablation_have_no_circle() -> None:
    arrows = architecture.arrows()
    level = architecture.floors(arrows)  # raises for a circle
    assert {"data/rows", "data/encoding", "ablation/study", "ablation/execution"} <= set(level)
    assert all(level[upper] > level[lower] for upper, lower in arrows)


def test_a_circle_is_found() -> None:
    circle = {("data/rows", "data/encoding"): 1, ("data/encoding", "data/rows"): 2, ("data/rows", "common"): 1}
    with pytest.raises(ValueError, match="data/encoding, data/rows"):
        architecture.floors(circle)


def test_figure_of_the_rooms_is_fresh() -> None:
    page = architecture.PAGE.read_text(encoding="utf-8")
    assert page == architecture.page(page), "docs/architecture.md is old; run: make architecture"


def test_pure_modules_import_nothing_heavy() -> None:
    wrong = []
    for module, packages in FORBIDDEN.items():
        heavy = {name.split(".")[0] for name in imported(PACKAGE / f"{module}.py")} & packages
        wrong += [f"{module} imports {name}" for name in sorted(heavy)]
    assert not wrong


BELOW = [path for path in FILES if LAYERS[unit(path)] < LAYERS["adapters"] and path.stem != "parser"]


def test_nothing_below_the_methods_imports_peft_at_its_top() -> None:
    """The import of peft registers the methods, which import this file: it would be incomplete then."""
    wrong = []
    for path in BELOW:
        tops = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = {getattr(node, "module", None) or node.names[0].name for node in tops}
        if any(module.split(".")[0] == "peft" for module in modules):
            wrong.append(str(path.relative_to(PACKAGE)))
    assert not wrong


def test_modules_below_the_methods_can_be_imported_first() -> None:
    """Each in a fork of a process that has imported what is not peft's or ours."""
    code = """
import importlib, os, sys
import lightning.pytorch.cli, transformers.modeling_utils
assert not {"peft", "smoa_lightning"} & sys.modules.keys()
for module in ("backbones.backbone", "configuration.parser"):
    child = os.fork()
    if not child:
        importlib.import_module(f"smoa_lightning.{module}")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, module
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'lightning')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

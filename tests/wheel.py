"""The wheel and the source archive of the package, and a clean environment that has nothing but the wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def build(folder: Path) -> tuple[Path, Path]:
    """Build wheel and source archive in a folder as pip does, from a copy of what git tracks."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    call = "from setuptools.build_meta import build_sdist, build_wheel; print(build_sdist('..'), build_wheel('..'))"
    subprocess.run([sys.executable, "-c", call], cwd=folder / "source", check=True, capture_output=True)
    (wheel,), (archive,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, archive


def clean_environment(folder: Path) -> Path:
    """Make a virtual environment with the wheel, its pinned requirements and pytest; return its programs' folder."""
    wheel, _ = build(folder)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv" / "bin"
    pip = [programs / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, "pytest"]
    done = subprocess.run(pip, capture_output=True, text=True, env=variables(programs, folder))
    if done.returncode:
        stop = pytest.skip if no_index(done.stderr) else pytest.fail
        stop(f"pip cannot install the wheel: {done.stderr.strip().splitlines()[-1]}")
    return programs


def no_index(errors: str) -> bool:
    """Return whether pip failed because it did not reach the index of packages."""
    return re.search(r"after connection broken by|Max retries exceeded|ReadTimeoutError", errors) is not None


def variables(programs: Path, home: Path) -> Mapping[str, str]:
    """Return the variables of a shell that knows only the programs of an environment and of the system."""
    return {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(home), "HF_HUB_OFFLINE": "1"}

"""A program that registers a task, and the processes that a study starts for it."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.common.user_program import VARIABLE, environment, import_program
from smoa_lightning.data.tasks import PIQA, TASKS, registered_tasks

TASK = """
import dataclasses
from smoa_lightning.__main__ import main
from smoa_lightning.data.tasks import PIQA, register_task
register_task(dataclasses.replace(PIQA, name="mine"))
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a program, in an environment that names it."""
    file = tmp_path / "mine.py"
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(file), raising=False)
    file.touch()
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))  # of the new process
    yield file
    TASKS.pop("mine", None)
    sys.modules.pop("__mp_main__", None)


def test_a_new_process_knows_the_tasks_of_the_program(program: Path) -> None:
    assert json.loads(os.environ[VARIABLE])["init_main_from_path"] == str(program)
    program.write_text(f"{TASK}\nif __name__ == '__main__': main(['ablate'])")
    import_program()
    assert registered_tasks() == ["mine"]
    assert VARIABLE not in os.environ  # of processes that this one starts
    import_program()


@pytest.mark.parametrize("command", ["ablate", "fit"])
def test_a_program_cannot_start_its_command_again(
    command: str, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program.write_text(f"{TASK}\nmain([{command!r}, '--config', 'no-such-file'])")
    import_program()
    assert f"starts the command {command} while a worker of a study imports it" in capsys.readouterr().err


@pytest.mark.parametrize("file", [None, "<stdin>"])
def test_a_study_with_own_tasks_needs_a_program_with_a_file(
    file: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``python -c`` and a notebook have no file, ``python -`` has one that does not exist."""
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    if file is not None:
        monkeypatch.setattr(sys.modules["__main__"], "__file__", file, raising=False)
    monkeypatch.setitem(TASKS, "mine", dataclasses.replace(PIQA, name="mine"))
    assert environment() == {}
    assert main(["ablate", "--config", "components", "--folder", str(tmp_path / "study")]) == 2
    assert "registers the task 'mine', but it has no file" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()

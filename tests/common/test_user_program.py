"""A program that registers a task, and the processes that a study starts for it."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from smoa_lightning.common.user_program import VARIABLE, environment, import_program
from smoa_lightning.data.tasks import TASKS, registered_tasks

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


def test_a_program_cannot_start_its_study_again(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program.write_text(f"{TASK}\nmain(['ablate', '--config', 'components'])")
    import_program()
    assert 'start it under if __name__ == "__main__"' in capsys.readouterr().err


def test_a_session_without_a_file_has_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    assert environment() == {}

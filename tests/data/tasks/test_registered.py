"""A task of a program of the user's: known to the commands of its process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.check import check_task
from smoa_lightning.data.tasks import PIQA, TASKS, get_task, register_task


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a task, which is removed after the test."""
    yield "mine"
    TASKS.pop("mine", None)


def test_a_registered_task_is_known_to_the_registry_and_the_early_check(name: str) -> None:
    with pytest.raises(UserError, match="unknown task 'mine'"):
        check_task(name)
    task = dataclasses.replace(PIQA, name=name)
    assert register_task(task) is register_task(task) is get_task(name)
    check_task(name)


def test_a_different_task_of_a_known_name_is_refused(name: str) -> None:
    register_task(dataclasses.replace(PIQA, name=name))
    with pytest.raises(UserError, match="there is a task 'mine' already"):
        register_task(dataclasses.replace(PIQA, name=name, version=2))
    with pytest.raises(UserError, match="there is a task 'piqa' already"):
        register_task(dataclasses.replace(PIQA, version=2))

"""How the shipped rows and the general text are read; what they say is judged by the tests of their generators."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from smoa_lightning import embedded
from smoa_lightning.common.errors import UserError


@pytest.mark.parametrize("name", embedded.TASKS)
def test_calls_are_equal_and_independent(name):
    first = embedded.rows(name, "validation")
    second = embedded.rows(name, "validation")
    assert first == second
    first[0].clear()
    for value in first[1].values():
        if isinstance(value, list | dict):
            value.clear()
    assert embedded.rows(name, "validation") == second


def test_a_changed_row_is_read_anew():
    first = embedded.rows("piqa", "test")
    first[0]["goal"] = "changed by the caller"
    assert embedded.rows("piqa", "test")[0]["goal"] != "changed by the caller"


def test_general_text_is_a_fresh_list_of_documents():
    texts = embedded.held_out_text()
    assert all(isinstance(text, str) and text.strip() for text in texts)
    assert len(texts) == len(set(texts)) >= 500
    before = list(texts)
    texts.clear()
    assert embedded.held_out_text() == before


def test_fast_and_without_torch():
    code = "import sys; from smoa_lightning.embedded import rows; rows('piqa', 'train'); print('torch' in sys.modules)"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "False"
    assert time.monotonic() - started < 5  # under 1 s on a machine that is not busy


def test_unknown_names_are_user_errors():
    with pytest.raises(UserError, match=r"'pika'.*piqa"):
        embedded.rows("pika", "train")
    with pytest.raises(UserError, match=r"'valid'.*validation"):
        embedded.rows("piqa", "valid")
    assert len(embedded.TASKS) == 28

"""Answers of made-up runs, and what the tests of `compare` read."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from smoa_lightning.__main__ import main

RNG = np.random.default_rng(11)
ROWS = 120
FIRST, SECOND, THIRD = (RNG.integers(0, 2, ROWS) for _ in range(3))
BASE = np.zeros(ROWS)


def table(file: Path, metric: str | None = None) -> list[dict[str, str]]:
    """Return the lines of a file; those of one metric if it is given."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [line for line in csv.DictReader(stream) if metric is None or line["metric"] == metric]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the command, which must refuse with one sentence, and return the sentence."""
    assert main(["compare", *words]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("smoa_lightning: ")
    assert error.count("\n") == 1
    return error

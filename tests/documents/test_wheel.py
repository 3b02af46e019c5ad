"""A wheel that cannot be installed is a failure, unless the index of packages is out of reach."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.wheel import no_index


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--index-url", "http://127.0.0.1:9/simple", "--retries", "1"], True),  # nothing listens there
        (["--no-index"], False),  # as for a pin that the index does not have
    ],
)
def test_only_an_index_out_of_reach_excuses_pip(options: list[str], expected: bool, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(tmp_path), *options, "no-such-package"]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode != 0
    assert no_index(done.stderr) is expected, done.stderr

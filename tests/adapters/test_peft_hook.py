"""After ``import smoa_lightning``, peft knows its methods, whichever is imported first; torch is not imported early."""

from __future__ import annotations

import subprocess
import sys

import pytest

from smoa_lightning.common import peft_hook

FRESH = """
import importlib.util, sys
import smoa_lightning
assert importlib.util.find_spec("peft") is not None  # as transformers does in each from_pretrained
assert not {"torch", "peft", "smoa_lightning.adapters"} & sys.modules.keys()
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
import peft
assert type(peft.__loader__).__name__ == "SourceFileLoader"
assert not any(type(finder).__module__.startswith("smoa_lightning") for finder in sys.meta_path)
import logging
import smoa_lightning.training.run, smoa_lightning.__main__
package = logging.getLogger("smoa_lightning")
assert (package.handlers, package.level, package.propagate) == ([], logging.NOTSET, True)
assert not logging.getLogger().handlers
logging.getLogger("smoa_lightning.data").info("a note")
logging.getLogger("smoa_lightning.data").warning("a warning")
print(*sorted(str(getattr(name, "value", name)) for name in PEFT_TYPE_TO_CONFIG_MAPPING))
"""
OURS = {"SMOA", "SURM", "MORA", "HYPERADAPT", "BOTTLENECK", "ABBA", "KRADAPTER"}


def test_peft_after_this_package() -> None:
    """As a library, this package configures no logging, and shows what every library shows."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FRESH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) >= OURS
    assert done.stderr.splitlines()[-1] == "a warning"
    assert "a note" not in done.stdout + done.stderr


def test_peft_before_this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import peft  # noqa: F401

    imported: list[str] = []
    monkeypatch.setattr(peft_hook.importlib, "import_module", imported.append)
    peft_hook.register_with_peft()
    assert imported == ["smoa_lightning.adapters"]
    assert not any(isinstance(finder, peft_hook._PeftFinder) for finder in sys.meta_path)

"""The program of a user that has imported this package, for processes that the package starts.

A program may register tasks. A new process does not know them until it has imported the program too, as the start
method ``spawn`` of :mod:`multiprocessing` does.
"""

from __future__ import annotations

import json
import os
from multiprocessing import spawn
from pathlib import Path

VARIABLE = "SMOA_LIGHTNING_PROGRAM"  # of the environment
KEYS = ("sys_path", "init_main_from_name", "init_main_from_path")

_importing = False


def environment() -> dict[str, str]:
    """Return the variable of the environment that names this process's program.

    It is empty if another process cannot import the program: it comes from ``python -c``, ``python -`` or a notebook.
    """
    facts = spawn.get_preparation_data("")
    named = {key: facts[key] for key in KEYS if key in facts}
    file = named.get("init_main_from_path")
    if len(named) == 1 or (file is not None and not Path(file).is_file()):  # only sys.path, or the file "<stdin>"
        return {}
    return {VARIABLE: json.dumps(named)}


def import_program() -> None:
    """Import the program that the environment names; nothing happens if it names none."""
    global _importing
    named = os.environ.pop(VARIABLE, None)
    if named is not None:
        _importing = True
        try:
            spawn.prepare(json.loads(named))
        finally:
            _importing = False


def is_importing() -> bool:
    """Whether :func:`import_program` is in progress, so that the program must not start its work."""
    return _importing

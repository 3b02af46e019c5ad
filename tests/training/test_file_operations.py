"""The counter behind the tests with kills and failing disks sees each kind of change to a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.training.file_operations import HALF, REMOVAL

CHANGES = """
import os, pathlib, shutil, sys
import torch
from safetensors.torch import save_file
from tests.training.file_operations import Operations
root = pathlib.Path(sys.argv[1])
(root / "a" / "b").mkdir(parents=True)
(root / "a" / "b" / "c").touch()
operations = Operations(root, lambda number: None)
os.chdir(root)
(root / "link").symlink_to("a")
os.link("a/b/c", "hard")
os.rename("hard", "d")
os.truncate("d", 3)
shutil.rmtree(root / "a")
os.remove("d")
(root / "e").mkdir()
(root / "e").rmdir()
tensor = torch.arange(9.0)
torch.save(tensor, root / "t")
save_file({"t": tensor}, root / "s")
(root / "f").write_text("x")
(root.parent / "elsewhere").write_text("x")
assert torch.equal(torch.load(root / "t"), tensor)
print(*operations.kinds, sep=";")
"""


def test_each_change_counts_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHANGES, str(tmp_path / "root")]
    (tmp_path / "root").mkdir()
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert done.stdout.strip().split(";") == [
        *("os.symlink", "os.link", "os.rename", "os.truncate", REMOVAL, REMOVAL, "os.rmdir"),  # a/b/c, a/b and a
        *("os.remove", "os.mkdir", "os.rmdir", "open", HALF, "open", HALF, "open"),
    ]

"""The time of ``report``, and how it grows with the number of runs of a study.

The script makes artificial studies with 5 seeds for each cell, and runs the command on each in a new process. It prints
the CPU seconds (user and system), which vary less than the time on a machine with other load, and the time, also
relative to the import of numpy and matplotlib, which shows the speed of the machine.

    python benchmarks/report_time.py                                  # 100 and 500 runs
    python benchmarks/report_time.py --runs 500 2000 10000 --items 100
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from smoa_lightning.common.checksums import sha256, write_sealed
from smoa_lightning.records.record import FILES, ITEMS, RECORD
from tests.ablation.made_study import make_study

SEEDS = 5
METHODS = ("lora", "hira", "none", "blocks", "energy")


def cells(number: int) -> dict[str, dict[str, Any]]:
    """Return cells of five methods with different ranks and numbers of subspaces."""
    found: dict[str, dict[str, Any]] = {}
    for place in range(number):
        method, other = METHODS[place % len(METHODS)], place // len(METHODS)
        count, rank = 2 ** (other % 4), 2 ** (1 + other // 4 % 5)
        labels = {"method": method, "r": str(rank), "num_subspaces": str(count), "variant": str(other // 20)}
        name = ",".join(f"{axis}={label}" for axis, label in labels.items())
        found[name] = {"labels": labels, "accuracy": 0.5 + 0.01 * (place % 5), "parameters": 1000 * rank,
                       "rank": 4.0 * rank * count, "r": rank, "num_subspaces": count}  # fmt: skip
    return found


def list_checksums(folder: Path) -> None:
    """Write the checksums of the items into the records, as runs do."""
    for file in folder.glob(f"runs/*/{RECORD}"):
        items, record = file.with_name(ITEMS), json.loads(file.read_text(encoding="utf-8"))
        if items.is_file():
            write_sealed(file, record | {FILES: {ITEMS: sha256(items)}})


def timed(command: list[str]) -> tuple[float, float]:
    """Run a command; return its time and its CPU seconds."""
    began, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--items", type=int, default=300, help="items of a run (default: 300)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    start = [sys.executable, "-c", "import numpy, matplotlib.figure, matplotlib.backends.backend_svg"]
    with tempfile.TemporaryDirectory() as root:
        folders = {}
        for runs in args.runs:
            folders[runs] = Path(root) / str(runs)
            make_study(folders[runs], cells(runs // SEEDS), range(SEEDS), items=args.items, search=True)
            list_checksums(folders[runs])
        found: dict[int, list[tuple[float, float]]] = {runs: [] for runs in args.runs}
        imports: list[tuple[float, float]] = []
        for _ in range(args.rounds):
            imports.append(timed(start))
            for runs, folder in folders.items():
                found[runs].append(timed([sys.executable, "-m", "smoa_lightning", "report", str(folder)]))
    unit, unit_cpu = (statistics.median(values) for values in zip(*imports, strict=True))
    print(f"{args.items} items a run; importing numpy and matplotlib takes {unit:.2f} s, {unit_cpu:.2f} CPU s\n")
    print("| runs | CPU s, median (least-most) | / imports | seconds | / imports | ms a run |\n" + "|---:" * 6 + "|")
    for runs, measured in found.items():
        (middle, shown), (cpu, shown_cpu) = (summary(values) for values in zip(*measured, strict=True))
        shown_all = [f"{runs:,}", shown_cpu, f"{cpu / unit_cpu:.1f}", shown, f"{middle / unit:.1f}"]
        print(f"| {' | '.join(shown_all)} | {1000 * middle / runs:.1f} |")


def summary(values: Sequence[float]) -> tuple[float, str]:
    """Return the median, and the median with the least and most value as text."""
    middle = statistics.median(values)
    return middle, f"{middle:.1f} ({min(values):.1f}-{max(values):.1f})"


if __name__ == "__main__":
    main()

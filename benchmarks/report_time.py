"""The time of ``report``, and how it grows with the number of runs of a study.

The script makes artificial studies with 5 seeds for each cell, and runs the command on each in a new process. It prints
the time, also relative to the import of numpy and matplotlib, which shows the speed of the machine.

    python benchmarks/report_time.py                                  # 100 and 500 runs
    python benchmarks/report_time.py --runs 500 2000 10000 --items 100
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

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


def timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


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
        found: dict[int, list[float]] = {runs: [] for runs in args.runs}
        imports: list[float] = []
        for _ in range(args.rounds):
            imports.append(timed(start))
            for runs, folder in folders.items():
                found[runs].append(timed([sys.executable, "-m", "smoa_lightning", "report", str(folder)]))
    unit = statistics.median(imports)
    print(f"{args.items} items a run; importing numpy and matplotlib takes {unit:.2f} s\n")
    print("| runs | seconds, median (least-most) | / imports | ms a run |\n|---:|---:|---:|---:|")
    for runs, times in found.items():
        middle = statistics.median(times)
        spread = f"{min(times):.1f}-{max(times):.1f}"
        print(f"| {runs:,} | {middle:.1f} ({spread}) | {middle / unit:.1f} | {1000 * middle / runs:.1f} |")


if __name__ == "__main__":
    main()

"""Peak memory and seconds of a short training run against the number of rows in its file.

Writes JSON lines in the schema of the task ``choice``, and starts ``fit`` on each file for a few steps with the
embedded backbone, twice: the second run finds checked and encoded rows in the cache. Each run is a process of its own.

    python benchmarks/large_file.py --rows 20000 200000 2000000

``--flag=--data.cache=false`` hands a flag on to ``fit``. The version on the import path is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = [chr(97 + number % 26) * (number % 6 + 1) for number in range(60)]


def write(path: Path, count: int) -> None:
    """Write ``count`` rows, each with a prompt of its own."""
    source = random.Random(0)
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            prompt, *choices = (" ".join(source.choices(WORDS, k=source.randint(low, 12))) for low in (6, 2, 2))
            row = {"prompt": f"{number}: {prompt}", "choices": choices, "label": number % 2}
            stream.write(json.dumps(row) + "\n")


def measure(path: Path, folder: Path, flags: list[str]) -> tuple[float, float]:
    """Run ``fit`` for a few steps; return its peak memory in MB and its seconds."""
    command = [
        *(sys.executable, "-m", "smoa_lightning", "fit", "--config", str(ROOT / "experiments" / "choice.yaml")),
        *("--model.backbone.source", "embedded", "--data.source", "local", "--data.path", str(path)),
        *("--trainer.accelerator", "cpu", "--trainer.max_steps", "5", "--trainer.limit_val_batches", "2"),
        *("--trainer.enable_progress_bar", "false", "--forgetting.text", "null", "--run.root", str(folder / "runs")),
        *flags,
    ]
    environment = os.environ | {"SMOA_LIGHTNING_CACHE": str(folder / "cache")}
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(output)
    return used.ru_maxrss / 1024, time.perf_counter() - began


def main() -> None:
    """Print a Markdown table with a line for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000, 2_000_000])
    parser.add_argument("--flag", action="append", default=[], help="a flag for fit; may be given several times")
    options = parser.parse_args()
    print("| rows | file, MB | peak memory, MB | seconds | peak memory, MB (again) | seconds (again) |")
    print("|---|---|---|---|---|---|")
    for count in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.jsonl"
            write(path, count)
            runs = [measure(path, Path(folder), options.flag) for _ in range(2)]
            numbers = " | ".join(f"{memory:,.0f} | {seconds:,.1f}" for memory, seconds in runs)
            print(f"| {count:,} | {path.stat().st_size / 1e6:,.0f} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()

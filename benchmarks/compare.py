"""Ratios between two versions of the project: the same benchmark runs alternately with each version.

    git worktree add /tmp/before v1.0
    python benchmarks/compare.py --before /tmp/before -- training_step.py --backbone FOLDER --rows-file FILE --rounds 3
    python benchmarks/compare.py --save now.json -- training_step.py ...      # save the seconds of this version
    python benchmarks/compare.py --baseline now.json -- training_step.py ...  # later: ratios to the saved seconds

The script reads the Markdown tables that a benchmark prints. The last column of a row is its value (seconds or
megabytes). Ratios above ``--tolerance`` are marked as regressions; with a regression the exit status is 1. Values in a
file come from a different time, and maybe from a different machine. So ``--before`` is exact, and a file is quick.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def values_of(script: list[str], version: Path) -> dict[str, float]:
    """Run a script of this folder with a version of the package; return row -> value for all its tables."""
    environment = os.environ | {"PYTHONPATH": str(version)}
    command = [sys.executable, str(Path(__file__).parent / script[0]), *script[1:]]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(script)} failed with {version} on the path:\n{done.stderr[-2000:]}")
    return parsed(done.stdout)


def parsed(text: str) -> dict[str, float]:
    """Read the first and the last column of all Markdown tables; names begin with the line before the table.

    >>> parsed("4x8 tokens\\n| method | seconds |\\n|---|---|\\n| lora | 0.5 |")
    {'4x8 tokens: lora': 0.5}
    """
    found: dict[str, float] = {}
    title = ""
    for line in text.splitlines():
        if not line.startswith("|"):
            title = line.strip() or title
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if number := re.fullmatch(r"[-+]?[\d.]+(?:e[-+]?\d+)?", cells[-1]):
            found[f"{title}: {cells[0]}"] = float(number[0])
    return found


def table(before: dict[str, list[float]], now: dict[str, list[float]], tolerance: float) -> tuple[str, int]:
    """Return the Markdown table of ratios now / before and the number of regressions."""
    lines = ["| what | now / before: median (range) | |", "|---|---|---|"]
    regressions = 0
    for name in now:
        if name not in before:
            lines.append(f"| {name} | only now | |")
            continue
        count = min(len(now[name]), len(before[name]))
        ratios = [own / old for own, old in zip(now[name][:count], before[name][:count], strict=True)]
        middle = statistics.median(ratios)
        regressions += middle > tolerance
        mark = "**slower**" if middle > tolerance else "faster" if middle < 1 / tolerance else ""
        lines.append(f"| {name} | {middle:.2f} ({min(ratios):.2f}-{max(ratios):.2f}) | {mark} |")
    lines += [f"| {name} | only before | |" for name in before if name not in now]
    return "\n".join(lines), regressions


def main() -> int:
    """Measure, compare, and return 1 if something has become slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="folder of the other version, measured alternately with this one")
    parser.add_argument("--baseline", type=Path, help="file that --save wrote, instead of --before")
    parser.add_argument("--save", type=Path, help="write the values of this version here")
    parser.add_argument("--repeats", type=int, default=3, help="how often each version is run")
    parser.add_argument("--tolerance", type=float, default=1.1, help="a row with a higher ratio counts as a regression")
    parser.add_argument("script", nargs=argparse.REMAINDER, help="-- a script of this folder and its arguments")
    options = parser.parse_args()
    script = options.script[1:] if options.script[:1] == ["--"] else options.script
    if not script or not (Path(__file__).parent / script[0]).is_file():
        parser.error("name a script of this folder after --, as in: -- training_step.py --backbone FOLDER")
    before: dict[str, list[float]] = {}
    now: dict[str, list[float]] = {}
    for _ in range(options.repeats):
        for series, version in ((before, options.before), (now, ROOT)):
            for name, value in (values_of(script, version) if version else {}).items():
                series.setdefault(name, []).append(value)
    if options.save:
        measured = {"machine": platform.processor() or platform.machine(), "command": script, "values": now}
        options.save.write_text(json.dumps(measured, indent=2) + "\n")
    if options.baseline:
        saved = json.loads(options.baseline.read_text())
        if saved["command"] != script:
            sys.exit(f"{options.baseline} has the values of a different command: {' '.join(saved['command'])}")
        before = saved["values"]
    if not before:
        print(json.dumps(now, indent=2))
        return 0
    text, regressions = table(before, now, options.tolerance)
    print(text)
    return 1 if regressions else 0


if __name__ == "__main__":
    sys.exit(main())

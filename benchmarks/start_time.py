"""The time until a command answers, and until the first optimizer step of ``fit``, relative to ``import torch``.

    python benchmarks/start_time.py [--repeats 5] [--threads 2] [--config experiments/piqa.yaml]

Each row is a separate process. All processes run in rounds, each time with a new cache of encoded rows. ``wall`` is the
time that a user waits. ``CPU`` (user + system, over all threads) is the cost; compare this value on a machine that is
also used for other work. The ratio is the CPU time divided by that of ``import torch`` in the same round.

``fit`` runs on the embedded model and rows, and is stopped after its first step. The second table has its stages. One
of them scores the base model on the report rows, since the protocol of a record needs this before the first step.
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
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

ROOT = Path(__file__).parents[1]
STAGES = {
    "trainer": "import, parse, make the objects",
    "scoring": "load the backbone, read and encode the report rows",
    "scored": "score the base model",
    "training": "attach, read and encode the training rows, optimizer",
    "step": "first step",
}


def spent() -> list[float]:
    """Return the wall time since the start of the process, and its CPU time."""
    used = os.times()
    return [time.time() - float(os.environ["STARTED"]), used.user + used.system]


class FirstStep(Callback):
    """Note when each stage ends, and end the process after the first optimizer step."""

    def __init__(self) -> None:
        self.marks = {"trainer": spent()}

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """The backbone is loaded."""
        self.marks["scoring"] = spent()

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """The base model is scored."""
        self.marks["scored"] = spent()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Everything is ready for training."""
        self.marks["training"] = spent()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End the process after an optimizer step."""
        if trainer.global_step:
            self.marks["step"] = spent()
            Path(os.environ["MARKS"]).write_text(json.dumps(self.marks))
            os._exit(0)


def commands(config: str, folder: Path) -> dict[str, list[str]]:
    """Return the timed commands: label -> arguments of python."""
    package = ["-m", "smoa_lightning"]
    embedded = ["--model.backbone.source", "embedded", "--data.source", "embedded", "--run.root", str(folder)]
    return {
        "import torch": ["-c", "import torch"],
        "--help": [*package, "--help"],
        "fit --help": [*package, "fit", "--help"],
        "rank --help": [*package, "rank", "--help"],
        "unknown key": [*package, "fit", "--config", config, "--data.protocl", "x"],
        "unknown key of the strategy": [*package, "fit", "--config", config, "--model.adapter.rank", "8"],
        "bad value": [*package, "fit", "--config", config, "--data.protocol", "likelyhood"],
        "missing file": [*package, "fit", "--config", f"{config}.missing"],
        "fit to the first step": [
            *(*package, "fit", "--config", config, *embedded),
            *("--trainer.callbacks+=start_time.FirstStep", "--trainer.enable_progress_bar", "false"),
        ],
    }


def run(arguments: list[str], threads: int) -> tuple[float, float, dict[str, list[float]]]:
    """Run python once; return wall time, CPU time and the marks of ``fit``."""
    with tempfile.TemporaryDirectory() as folder:
        marks = Path(folder) / "marks.json"
        own = {"STARTED": str(time.time()), "MARKS": str(marks), "SMOA_LIGHTNING_CACHE": folder}
        own |= {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(Path(__file__).parent), "HF_HUB_OFFLINE": "1"}
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | own,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, _, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        return wall, usage.ru_utime + usage.ru_stime, json.loads(marks.read_text()) if marks.is_file() else {}


def loads_torch(arguments: list[str]) -> bool:
    """Whether the process imports torch."""
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return any(line.rpartition("|")[2].strip() == "torch" for line in shown.stderr.splitlines())


def spread(values: list[float]) -> str:
    """Return the median with the range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def main() -> None:
    """Time all commands in rounds and print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--config", default="experiments/piqa.yaml")
    parser.add_argument(
        "--without_fit", action="store_true", help="do not time the first step of fit, which takes longest"
    )
    options = parser.parse_args()
    walls: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    rounds: list[dict[str, list[float]]] = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            listed = commands(options.config, Path(folder))
            if options.without_fit:
                del listed["fit to the first step"]
            for label, arguments in listed.items():
                wall, cost, marks = run(arguments, options.threads)
                walls.setdefault(label, []).append(wall)
                costs.setdefault(label, []).append(cost)
                if label == "fit to the first step":
                    assert "step" in marks, "fit ended before its first step: run fit by hand to see the reason"
                    rounds.append(marks)
    print("| command | wall s | CPU s | CPU / import torch | imports torch |\n|---|---|---|---|---|")
    for label, arguments in listed.items():
        ratios = [cost / reference for cost, reference in zip(costs[label], costs["import torch"], strict=True)]
        torch = "yes" if label.startswith("fit to") or loads_torch(arguments) else "no"
        print(f"| {label} | {spread(walls[label])} | {spread(costs[label])} | {spread(ratios)} | {torch} |")
    if rounds:
        print("\n| until the first step | wall s | CPU s |\n|---|---|---|")
        before = {i: [0.0, 0.0] for i in range(len(rounds))}
        for stage, text in STAGES.items():
            taken = [[now - then for now, then in zip(m[stage], before[i], strict=True)] for i, m in enumerate(rounds)]
            before = {i: marks[stage] for i, marks in enumerate(rounds)}
            print(f"| {text} | {spread([t[0] for t in taken])} | {spread([t[1] for t in taken])} |")


if __name__ == "__main__":
    main()

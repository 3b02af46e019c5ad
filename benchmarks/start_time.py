"""The time until a command answers, and until the first optimizer step of ``fit``, relative to ``import torch``.

    python benchmarks/start_time.py [--repeats 5] [--threads 2] [--config experiments/piqa.yaml]
    python benchmarks/start_time.py --only_fit [--peer-python PATH/bin/python]

Each row is a separate process. All processes run in rounds, each time with a new cache of encoded rows. ``wall`` is the
time that a user waits. ``CPU`` (user + system, over all threads) is the cost; compare this value on a machine that is
also used for other work. The ratio is the CPU time divided by that of ``import torch`` in the same round.

``fit`` runs on the embedded model and rows, and is stopped after its first step. The second table has its stages. One
of them scores the base model on the report rows, since the protocol of a record needs this before the first step.
``fit, only training`` scores nothing. The script of HF Trainer and peft (``peers/hf_trainer.py``) makes its first step
on the same rows, and scores nothing either; the third table compares it with both.
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

from fit_against_peers import ONLY_TRAINING, ordered_pairs
from lightning.pytorch.callbacks import Callback

from smoa_lightning.embedded import backbone_folder, rows

ROOT = Path(__file__).parents[1]
STAGES = {
    "imported": "import, build the parser",
    "trainer": "parse, make the objects",
    "scoring": "check, read and encode the rows, load the backbone",
    "scored": "score the base model",
    "training": "attach, optimizer",
    "step": "first step",
}


def spent() -> list[float]:
    """Return the wall time since the start of the process, and its CPU time."""
    used = os.times()
    return [time.time() - float(os.environ["STARTED"]), used.user + used.system]


IMPORTED = spent() if "STARTED" in os.environ else []  # the parser imports this file for the class below
BATCH = 32  # of the experiment
FIT, TRAINING, PEER = "fit to the first step", "fit, only training, to the first step", "HF Trainer to the first step"


class FirstStep(Callback):
    """Note when each stage ends, and end the process after the first optimizer step."""

    def __init__(self) -> None:
        self.marks = {"imported": IMPORTED, "trainer": spent()}

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


def commands(config: str, folder: Path, peer: str) -> dict[str, list[str]]:
    """Return the timed commands: label -> interpreter and its arguments."""
    package = [sys.executable, "-m", "smoa_lightning"]
    embedded = ["--model.backbone.source", "embedded", "--data.source", "embedded", "--run.root", str(folder)]
    fit = [*package, "fit", "--config", config, *embedded, "--trainer.callbacks+=start_time.FirstStep"]
    fit += ["--trainer.enable_progress_bar", "false"]
    script = [peer, f"{ROOT}/benchmarks/peers/hf_trainer.py", "--backbone", str(backbone_folder())]
    return {
        "import torch": [sys.executable, "-c", "import torch"],
        "--help": [*package, "--help"],
        "fit --help": [*package, "fit", "--help"],
        "rank --help": [*package, "rank", "--help"],
        "unknown key": [*package, "fit", "--config", config, "--data.protocl", "x"],
        "unknown key of the strategy": [*package, "fit", "--config", config, "--model.adapter.rank", "8"],
        "bad value": [*package, "fit", "--config", config, "--data.protocol", "likelyhood"],
        "missing file": [*package, "fit", "--config", f"{config}.missing"],
        FIT: fit,
        TRAINING: [*fit, *ONLY_TRAINING],
        PEER: [*script, "--rows", f"{folder}/pairs.jsonl", "--output", f"{folder}/peer", "--batch-size", str(BATCH),
               "--max-steps", "1"],
    }  # fmt: skip


def write_pairs(folder: Path) -> None:
    """Write prompts and responses of the embedded PIQA rows for the peer, in the order of ``fit``."""
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows("piqa", "train")))
    options = argparse.Namespace(task="piqa", batch_size=BATCH, backbone=str(backbone_folder()))
    ordered_pairs(options, folder, folder / "pairs.jsonl")


def run(command: list[str], threads: int) -> tuple[float, float, dict[str, list[float]]]:
    """Run a command once; return wall time, CPU time and the marks of its stages."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "marks.json"
        own = {"STARTED": str(time.time()), "MARKS": str(file), "SMOA_LIGHTNING_CACHE": folder}
        own |= {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        own |= {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)])}
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, _, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        marks = json.loads(file.read_text()) if file.is_file() else {}
        return wall, usage.ru_utime + usage.ru_stime, marks.get("marks", marks)


def loads_torch(arguments: list[str]) -> bool:
    """Whether the process imports torch."""
    command = [arguments[0], "-X", "importtime", *arguments[1:]]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return any(line.rpartition("|")[2].strip() == "torch" for line in shown.stderr.splitlines())


def spread(values: list[float]) -> str:
    """Return the median with the range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def stage_table(found: list[dict[str, list[float]]]) -> str:
    """Return the seconds of each stage of ``fit``."""
    lines = ["| until the first step | wall s | CPU s |", "|---|---|---|"]
    before = [[0.0, 0.0] for _ in found]
    for stage, text in STAGES.items():
        taken = [
            [now - then for now, then in zip(m[stage], b, strict=True)] for m, b in zip(found, before, strict=True)
        ]
        before = [marks[stage] for marks in found]
        lines.append(f"| {text} | {spread([t[0] for t in taken])} | {spread([t[1] for t in taken])} |")
    return "\n".join(lines)


def peer_table(found: dict[str, list[dict[str, list[float]]]]) -> str:
    """Return the seconds until the first step, relative to the script of HF Trainer in the same round."""
    lines = ["| to the first step | wall s | CPU s | wall / HF Trainer | CPU / HF Trainer |", "|---|---|---|---|---|"]
    for label in (FIT, TRAINING, PEER):
        steps, theirs = ([marks["step"] for marks in found[name]] for name in (label, PEER))
        cells = [spread([step[kind] for step in steps]) for kind in (0, 1)]
        cells += [spread([a[kind] / b[kind] for a, b in zip(steps, theirs, strict=True)]) for kind in (0, 1)]
        lines.append(
            f"| {label.removesuffix(', to the first step').removesuffix(' to the first step')} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Time all commands in rounds and print the Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--config", default="experiments/piqa.yaml")
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter with peft, transformers and datasets"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--without_fit", action="store_true", help="do not time first steps, which take longest")
    only.add_argument("--only_fit", action="store_true", help="time first steps only")
    options = parser.parse_args()
    walls: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    steps: dict[str, list[dict[str, list[float]]]] = {FIT: [], TRAINING: [], PEER: []}
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            listed = commands(options.config, Path(folder), options.peer_python)
            if not options.without_fit:
                write_pairs(Path(folder))
            for label in listed:
                if options.without_fit if label in steps else options.only_fit and label != "import torch":
                    continue
                wall, cost, marks = run(listed[label], options.threads)
                walls.setdefault(label, []).append(wall)
                costs.setdefault(label, []).append(cost)
                if label in steps:
                    assert "step" in marks, f"{label} ended before its first step: run it by hand to see the reason"
                    steps[label].append(marks)
    print("| command | wall s | CPU s | CPU / import torch | imports torch |\n|---|---|---|---|---|")
    for label, own in costs.items():
        ratios = [cost / reference for cost, reference in zip(own, costs["import torch"], strict=True)]
        torch = "yes" if label in steps or loads_torch(listed[label]) else "no"
        print(f"| {label} | {spread(walls[label])} | {spread(own)} | {spread(ratios)} | {torch} |")
    if not options.without_fit:
        print(f"\n{stage_table(steps[FIT])}\n\n{peer_table(steps)}")


if __name__ == "__main__":
    main()

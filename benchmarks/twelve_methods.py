"""Twelve methods of peft at one budget, ten steps each: one study of this project against twelve scripts of a peer.

The study is one command, ``ablate``. It chooses each method's size for the budget, trains ten steps, saves the adapter
and scores a few report rows. Then each method runs as a process of its own with HF Trainer (``peers/hf_trainer.py``).
It has the same rows in the same batches, and the sizes that the study has chosen.

    python benchmarks/twelve_methods.py --peer-python PATH/bin/python                          # the embedded backbone
    python benchmarks/twelve_methods.py --peer-python PATH/bin/python --backbone smollm2/ --dtype bfloat16 \\
        --budget 480k

The table has wall and CPU seconds of both sides, and their ratio in each round.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from fit_against_peers import HERE, ROOT, cut_rows, ordered_pairs, timed_process
from turns import add_backbone_arguments, quartiles, rounds, spread

from smoa_lightning.embedded import backbone_folder, rows

METHODS = ("lora", "rslora", "dora", "pissa", "hira", "gralora", "loha", "lokr", "oft", "c3a", "fourierft", "adalora")
TARGETS = "[q_proj, v_proj, up_proj]"


def embedded_rows(task: str, folder: Path) -> Path:
    """Write the embedded rows of a task to a folder."""
    folder.mkdir()
    for split in ("train", "validation"):
        text = "".join(json.dumps(row) + "\n" for row in rows(task, split))
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


def study_text(options: argparse.Namespace, folder: Path) -> str:
    """Return the study file: one axis of methods, one seed."""
    overlays = "\n".join(f"    - {ROOT}/experiments/adapters/{method}.yaml" for method in options.methods)
    return f"""
name: twelve
base: [{ROOT}/experiments/{options.task}.yaml]
axes:
  method:
{overlays}
baseline: {{method: lora}}
budget: {options.budget}
objective: acc
seeds: [0]
keep: best
overrides:
  model.backbone.source: local
  model.backbone.path: {options.backbone}
  model.backbone.dtype: {options.dtype}
  model.budget_tolerance: 0.5
  model.adapter.init_args.target_modules: {TARGETS}
  data.source: local
  data.path: {folder}
  data.batch_size: {options.batch_size}
  data.selection_rows: 0
  trainer.max_steps: {options.steps}
  trainer.accelerator: {options.device}
"""


def adapter_folders(folder: Path, methods: list[str]) -> list[Path]:
    """Return the adapter of each run of a study."""
    found = sorted(path.parent for path in folder.glob("runs/*/adapter/best/adapter_config.json"))
    if len(found) != len(methods):
        raise SystemExit(f"the study has {len(found)} adapters of {len(methods)} methods in {folder}")
    return found


def one_round(options: argparse.Namespace, folder: Path, number: int) -> tuple[list[float], list[float]]:
    """Run the study, then the scripts; return wall and CPU seconds of both."""
    study = folder / f"study-{number}"
    command = [options.python, "-m", "smoa_lightning", "ablate", "--config", str(folder / "twelve.yaml")]
    own = timed_process([*command, "--folder", str(study)], options.device)
    peer = [0.0, 0.0]
    for method, adapter in enumerate(adapter_folders(study, options.methods)):
        command = [options.peer_python, f"{HERE}/peers/hf_trainer.py", "--backbone", options.backbone]
        command += ["--rows", f"{folder}/pairs.jsonl", "--dtype", options.dtype, "--max-steps", str(options.steps)]
        command += ["--batch-size", str(options.batch_size), "--adapter-config", str(adapter)]
        used = timed_process([*command, "--output", f"{folder}/peer-{number}-{method}"], options.device)
        peer = [a + b for a, b in zip(peer, used, strict=True)]
    return list(own), peer


def main() -> None:
    """Measure in rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_backbone_arguments(parser, required=False, attention=False)
    parser.add_argument("--data", help="folder with train.jsonl and validation.jsonl (default: the embedded rows)")
    parser.add_argument("--task", default="piqa")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--budget", default="16k", help="trainable parameters of every method")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--report-rows", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, help="no further round begins that would end later than this")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--json", help="file for all measurements")
    options = parser.parse_args()
    options.backbone = options.backbone or str(backbone_folder())
    options.rows = options.steps * options.batch_size
    measured: list[tuple[list[float], list[float]]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options.data = options.data or str(embedded_rows(options.task, folder / "embedded"))
        cut = cut_rows(options, folder)
        ordered_pairs(options, cut, folder / "pairs.jsonl")
        (folder / "twelve.yaml").write_text(study_text(options, cut), encoding="utf-8")
        for number in rounds(options.rounds, options.seconds):
            study, scripts = one_round(options, folder, number)
            measured.append((study, scripts))
            print(f"# round {number + 1}: study {study}, scripts {scripts}", file=sys.stderr, flush=True)
    print(f"| {len(options.methods)} methods, {options.steps} steps | study | scripts | study / scripts |")
    print("|---|---|---|---|")
    summary: dict[str, Any] = {}
    for place, kind in enumerate(("wall", "CPU")):
        own, peer = ([pair[side][place] for pair in measured] for side in (0, 1))
        print(f"| {kind} s | {quartiles(own)[1]:.1f} | {quartiles(peer)[1]:.1f} | {spread(own, peer)} |")
        summary[kind] = {"study": own, "scripts": peer}
    if options.json:
        Path(options.json).write_text(json.dumps({"options": vars(options), **summary}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

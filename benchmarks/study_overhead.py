"""The overhead of a study, and whether a worker's results are the same as in new processes.

The script runs a study of 12 short runs (4 cells x 3 seeds) in one worker, with the command of a user. Then it runs
each of the 12 runs separately with ``fit``. It prints

* the wall time of the study relative to the time inside its runs (training and evaluation, from the records), and
  relative to the 12 commands; the target for the first ratio is at most 1.1;
* the number of runs with item scores and adapter files that are byte for byte the same as in a new process.

    python benchmarks/study_overhead.py                                    # the embedded backbone and rows
    python benchmarks/study_overhead.py --backbone smollm2/ --data piqa/ --train-rows 64

Both use the number of threads in ``OMP_NUM_THREADS``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from smoa_lightning.ablation.study.expand import load_study

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def study_text(args: argparse.Namespace) -> str:
    lines = [
        "name: overhead",
        f"base: [{EXPERIMENTS}/piqa.yaml, {EXPERIMENTS}/backbones/embedded.yaml]",
        f"axes: {{method: [{EXPERIMENTS}/adapters/lora.yaml, {EXPERIMENTS}/adapters/smoa_blocks.yaml], r: [8, 16]}}",
        "baseline: {method: lora, r: 8}",
        "objective: acc",
        "seeds: 3",
        "overrides:",
        f"  data.limit_train_rows: {args.train_rows}",
        f"  data.limit_report_rows: {args.report_rows}",
        "  data.selection_rows: 32",
        "  trainer.max_epochs: 1",
    ]
    if args.backbone is not None:
        lines += ["  model.backbone.source: local", f"  model.backbone.path: {args.backbone}"]
        lines += ["  model.backbone.dtype: bfloat16"]
    if args.data is not None:
        lines += ["  data.source: local", f"  data.path: {args.data}"]
    return "\n".join(lines) + "\n"


def timed(command: list[str]) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "smoa_lightning", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return time.perf_counter() - began


def same(one: Path, other: Path) -> bool:
    names = ("items.jsonl", "adapter/best/adapter_model.safetensors")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", type=Path, default=None, help="folder of a model (default: the embedded one)")
    parser.add_argument("--data", type=Path, default=None, help="folder of PIQA rows (default: the embedded ones)")
    parser.add_argument("--train-rows", type=int, default=640)
    parser.add_argument("--report-rows", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        file, folder = Path(root) / "overhead.yaml", Path(root) / "studies" / "overhead"
        file.write_text(study_text(args), encoding="utf-8")
        whole = timed(["ablate", "--config", str(file), "--folder", str(folder)])
        runs = list(load_study([file]).final_runs())
        inside, separate, equal = 0.0, 0.0, 0
        for run in runs:
            record = json.loads((folder / "runs" / run.name / "record.json").read_text(encoding="utf-8"))
            inside += record["seconds"]
            alone = Path(root) / "fresh" / run.name
            base = [] if "base/acc" in record["metrics"] else ["--run.score_base=false"]
            separate += timed(["fit", *run.arguments, *base, f"--run.folder={alone}"])
            equal += same(folder / "runs" / run.name, alone)
    print(f"| {len(runs)} runs | seconds | study / this |")
    print("|---|---|---|")
    print(f"| the study, one worker | {whole:.1f} | 1 |")
    print(f"| inside its runs | {inside:.1f} | {whole / inside:.3f} |")
    print(f"| the same runs as commands | {separate:.1f} | {whole / separate:.3f} |")
    print(f"\n{equal} of {len(runs)} runs are bit for bit the same as in new processes")


if __name__ == "__main__":
    main()

"""The whole command ``fit`` against the scripts that users of peft and TRL write: wall time, CPU time, peak memory.

Every measurement is a whole process, from its start to its end. All programs train the same model on the same rows with
the same prompts, batches, order and padding, optimizer, schedule and adapter (``peers/``). They run in turn, and ratios
are within a round; the tables have median and quartiles.

    python benchmarks/fit_against_peers.py --backbone smollm2/ --data social_i_qa/ --peer-python PATH/bin/python
    python benchmarks/fit_against_peers.py ... --check    # float32: the same losses, step by step

Programs:

* ``lora``, ``smoa``: ``fit`` that only trains. It writes its record, checkpoint, adapters and TensorBoard points, and
  scores nothing (``--run.score_base false --run.score_report false --data.selection_rows 0``).
* ``lora_scored``: ``fit`` as a user starts it. It also scores the base model and the adapter on the report rows.
* ``lora_packed``: like ``lora``, with ``data.packing`` in rows of 256 tokens.
* ``hf``: HF Trainer and peft's LoRA in the same order. ``hf_shuffled``: in its own order, with more padding.
* ``trl``, ``trl_packed``: TRL's SFTTrainer with completion-only loss, and with its own packing in rows of 256 tokens.

``trl_packed`` and ``lora_packed`` have two rows in a batch. Peers have no evaluation, logs to files or resume points.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from turns import add_backbone_arguments, quartiles, rounds, spread

HERE = Path(__file__).parent
ROOT = HERE.parent
OURS = ("lora", "lora_scored", "lora_packed", "smoa")
PEERS = ("hf", "hf_shuffled", "trl", "trl_packed")
PACKED = ("--max-length", "256", "--batch-size", "2", "--packing")
TARGETS = "[q_proj,k_proj,v_proj,up_proj,down_proj]"
ONLY_TRAINING = ("--run.score_base", "false", "--run.score_report", "false", "--data.selection_rows", "0")
PEER_SCRIPTS = {
    "hf": ("hf_trainer", ()),
    "hf_shuffled": ("hf_trainer", ("--shuffle",)),
    "trl": ("trl_sft", ()),
    "trl_packed": ("trl_sft", PACKED),
}
AGREE = 1e-5


def cut_rows(options: argparse.Namespace, folder: Path) -> Path:
    """Write the first rows of both splits to a folder of their own."""
    rows = folder / "rows"
    rows.mkdir()
    for split, number in (("train", options.rows), ("validation", options.report_rows)):
        with (Path(options.data) / f"{split}.jsonl").open(encoding="utf-8") as stream:
            (rows / f"{split}.jsonl").write_text("".join(itertools.islice(stream, number)), encoding="utf-8")
    return rows


def ordered_pairs(options: argparse.Namespace, rows: Path, file: Path) -> None:
    """Write prompt and completion of every row in the order in which ``fit`` trains on them."""
    from smoa_lightning.backbones.backbone import BackboneConfig, locate
    from smoa_lightning.backbones.tokenizer import load_tokenizer
    from smoa_lightning.data.datamodule import TaskDataModule

    sizes: dict[str, Any] = {"batch_size": options.batch_size, "selection_rows": 0, "seed": 0}
    data = TaskDataModule(options.task, "local", path=str(rows), **sizes)
    data.resolve()
    data.tokenizer = load_tokenizer(locate(BackboneConfig("local", path=options.backbone)))
    data.setup("fit")
    loader, indices, lines = data.train_dataloader(), data.indices("train"), []
    for batch in loader.order.epoch(0):
        examples = [data.example("train", indices[row]) for row in batch]
        pairs = [example.pairs[example.label] for example in examples]
        lines += [json.dumps({"prompt": prompt, "completion": response}) for prompt, response in pairs]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def our_command(options: argparse.Namespace, program: str, folder: Path, output: Path) -> list[str]:
    """Return the command of a ``fit``."""
    overlay = "smoa_blocks" if program.startswith("smoa") else "lora"
    command = [options.python, "-m", "smoa_lightning", "fit", "--config", f"{ROOT}/experiments/{options.task}.yaml"]
    command += ["--config", f"{ROOT}/experiments/adapters/{overlay}.yaml"]
    command += ["--model.adapter.init_args.target_modules", TARGETS, "--trainer.accelerator", options.device]
    command += ["--model.backbone.source", "local", "--model.backbone.path", options.backbone]
    command += ["--model.backbone.dtype", options.dtype, "--data.source", "local", "--data.path", f"{folder}/rows"]
    command += ["--data.batch_size", str(options.batch_size), "--trainer.max_epochs", "1"]
    command += ["--trainer.enable_progress_bar", "false", "--run.folder", str(output)]
    command += ["--trainer.callbacks+=fit_marks.Marks"]
    if program == "lora_packed":
        command += ["--data.packing", "true", "--data.max_length", "256", "--data.batch_size", "2"]
    if options.attention:
        command += ["--model.backbone.attn_implementation", options.attention]
    return command if program == "lora_scored" else [*command, *ONLY_TRAINING]


def peer_command(options: argparse.Namespace, program: str, folder: Path, output: Path) -> list[str]:
    """Return the command of a peer script."""
    script, flags = PEER_SCRIPTS[program]
    command = [options.peer_python, f"{HERE}/peers/{script}.py", "--backbone", options.backbone]
    command += ["--rows", f"{folder}/pairs.jsonl", "--output", str(output), "--dtype", options.dtype]
    command += ["--batch-size", str(options.batch_size), *flags]
    return command if not options.attention else [*command, "--attention", options.attention]


def finished(command: list[str], device: str = "cpu", **variables: str) -> tuple[float, Any]:
    """Run a process to its end; return its seconds and what it and its children used."""
    paths = [str(HERE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    began = time.time()
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "STARTED": repr(began)}
    environment = os.environ | offline | variables | {"PYTHONPATH": os.pathsep.join(paths)}
    if device == "cuda":
        environment["PEER_CUDA"] = "1"
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, text=True)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.time() - began
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{log.read()[-3000:]}")
    return wall, used


def timed_process(command: list[str], device: str = "cpu") -> tuple[float, float]:
    """Run a process to its end; return its wall and CPU seconds, with its children."""
    wall, used = finished(command, device)
    return wall, used.ru_utime + used.ru_stime


def run(command: list[str], marks: Path, device: str = "cpu") -> dict[str, Any]:
    """Run a process; return its seconds, CPU seconds, peak memory, marks and losses."""
    wall, used = finished(command, device, MARKS=str(marks))
    noted = json.loads(marks.read_text(encoding="utf-8"))
    return {**noted, "wall": wall, "cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss / 1024}


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Run all programs in rounds, every second round in the opposite order."""
    found: dict[str, list[dict[str, Any]]] = {program: [] for program in options.programs}
    for number in rounds(options.rounds + options.warm_up, options.seconds):
        for program in options.programs[:: -1 if number % 2 else 1]:
            output = folder / f"{program}-{number}"
            make = our_command if program in OURS else peer_command
            result = run(make(options, program, folder, output), folder / "marks.json", options.device)
            if number >= options.warm_up:
                found[program].append(result)
                print(f"# {program}: {result['wall']:.1f} s, CPU {result['cpu']:.1f} s", file=sys.stderr, flush=True)
    return found


def ratios(found: dict[str, list[dict[str, Any]]], peer: str) -> str:
    """Return the table of all programs relative to a peer."""
    lines = [f"| program | wall / {peer} | CPU / {peer} | memory / {peer} | wall s | CPU s | MB |", "|" + "---|" * 7]
    for program, own in found.items():
        cells = [spread([r[key] for r in own], [r[key] for r in found[peer]]) for key in ("wall", "cpu", "memory")]
        cells += [f"{statistics.median(r[key] for r in own):.1f}" for key in ("wall", "cpu", "memory")]
        lines.append(f"| {program} | {' | '.join(cells)} |")
    return "\n".join(lines)


def stages(results: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return wall and CPU seconds of each stage of a program, medians over the rounds; the last one is the end."""
    table: dict[str, tuple[float, float]] = {}
    names = sorted(results[0]["marks"], key=lambda name: results[0]["marks"][name][0])
    for before, name in itertools.pairwise([None, *names]):
        gaps = [
            [now - (result["marks"][before][kind] if before else 0.0) for kind, now in enumerate(result["marks"][name])]
            for result in results
        ]
        table[name] = (statistics.median(gap[0] for gap in gaps), statistics.median(gap[1] for gap in gaps))
    rest = statistics.median(result["wall"] - result["marks"]["end"][0] for result in results)
    return table | {"exit": (rest, statistics.median(r["cpu"] - r["marks"]["end"][1] for r in results))}


def time_lines(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return the time line of every program: wall (CPU) seconds until each mark, from the one before it."""
    lines = []
    for program, results in found.items():
        parts = [f"{name} {wall:.2f} ({cpu:.2f})" for name, (wall, cpu) in stages(results).items()]
        lines.append(f"* {program}: {', '.join(parts)}")
    return "\n".join(lines)


def check(options: argparse.Namespace, folder: Path) -> float:
    """Return the largest relative difference between the losses of ``fit`` and of HF Trainer, step by step.

    Both start from the same adapter with random factors, without dropout, in float32.
    """
    marks = folder / "marks.json"
    first = our_command(options, "lora", folder, folder / "start")
    constant = ["--model.warmup", "0", "--model.decay", "constant"]
    noting = [part.replace("fit_marks.Marks", "fit_marks.LossMarks") for part in first]
    own = run([*noting, *constant], marks, options.device)["losses"]
    command = [*peer_command(options, "hf", folder, folder / "peer"), "--constant", "--note-losses"]
    # the initial adapter: the one that the run itself attaches with its seed
    peer = run([*command, "--start", str(initial_adapter(options, folder))], marks, options.device)["losses"]
    if len(own) != len(peer):
        raise SystemExit(f"fit made {len(own)} steps and the peer {len(peer)}")
    return max(abs(a - b) / abs(b) for a, b in zip(own, peer, strict=True))


def initial_adapter(options: argparse.Namespace, folder: Path) -> Path:
    """Save the adapter that ``fit`` attaches before its first step, and return its folder."""
    import torch
    from peft import LoraConfig

    from smoa_lightning.adapters import attach
    from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate

    backbone = BackboneConfig("local", path=options.backbone, dtype=options.dtype)
    torch.manual_seed(0)
    model = load_model(backbone, locate(backbone)).requires_grad_(False)
    config = LoraConfig(r=32, lora_alpha=32, target_modules=TARGETS[1:-1].split(","))
    attach(model, config, 0).save_pretrained(str(folder / "initial"))
    return folder / "initial"


def main() -> int:
    """Measure, print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_backbone_arguments(parser, attention=False)
    parser.add_argument("--attention", help="attn_implementation of all programs (default: that of each program)")
    parser.add_argument("--data", required=True, help="folder with train.jsonl and validation.jsonl")
    parser.add_argument("--task", default="social_i_qa")
    parser.add_argument("--rows", type=int, default=320, help="training rows, a multiple of the batch size")
    parser.add_argument("--report-rows", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--programs", nargs="+", choices=[*OURS, *PEERS], default=["lora", "hf", "smoa", "trl"])
    parser.add_argument("--against", default="hf", choices=PEERS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, help="no further round begins that would end later than this")
    parser.add_argument("--warm-up", type=int, default=0, help="rounds that are not counted")
    parser.add_argument("--python", default=sys.executable, help="interpreter of this project")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with peft and TRL")
    parser.add_argument("--check", action="store_true", help="compare the losses of every step instead of times")
    parser.add_argument("--json", help="file for all measurements")
    options = parser.parse_args()
    if options.rows % options.batch_size:
        parser.error("--rows must be a multiple of --batch-size: the peers' batches are consecutive rows")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ordered_pairs(options, cut_rows(options, folder), folder / "pairs.jsonl")
        if options.check:
            difference = check(options, folder)
            print(f"largest relative difference of the loss of a step: {difference:.1e}")
            return 0 if difference <= AGREE else 1
        found = measure(options, folder)
    made = min(map(len, found.values()))
    print(f"\n{options.dtype}, {options.rows} rows, batches of {options.batch_size}, {made} rounds\n")
    if options.against in found:
        print(ratios(found, options.against))
    print(f"\nSeconds of each stage, wall (CPU):\n\n{time_lines(found)}")
    if options.json:
        summary = {
            program: {key: quartiles([r[key] for r in own]) for key in ("wall", "cpu", "memory")}
            for program, own in found.items()
        }
        content = {"options": vars(options), "summary": summary, "measurements": found}
        Path(options.json).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

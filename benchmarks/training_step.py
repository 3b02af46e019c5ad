"""Time and peak memory of one training step, as ratios to peft's LoRA, to peft's HiRA and to the published recipe.

Every method adapts q, k, v, up and down of its own copy of the same backbone, with the same rank. A step is forward,
loss, backward and AdamW on real texts, cut to rows of the same length; the second half of each row are the targets.
Each round times all methods, so that a slow minute of the machine affects all of them. Ratios are within a round; the
script prints median and quartiles over the rounds. ``floor`` is only the frozen backbone's forward and input gradient.

Memory is the growth of the peak resident size (on CUDA: of allocated memory) after the model is loaded, without an
adapter. Each method is measured in a separate process. The growth is for adapter, optimizer state, activations,
gradients and caches.

    python benchmarks/training_step.py --backbone FOLDER --rows-file piqa/train.jsonl --dtype float32
    python benchmarks/training_step.py --backbone FOLDER --rows-file piqa/train.jsonl --dtype bfloat16 --memory
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from peft import HiraConfig, LoraConfig, PeftConfig
from published_recipe import attach_recipe
from torch import Tensor, nn
from transformers import AutoTokenizer
from turns import add_backbone_arguments, spread

from smoa_lightning.adapters import SMoAConfig, attach
from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate
from smoa_lightning.common.quiet import quiet_libraries
from smoa_lightning.evaluation.scoring import summed_cross_entropy, target_logits

TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
SHAPES = ("8x96", "4x256")


def smoa(partition: str, num_subspaces: int, rank: int) -> SMoAConfig:
    """Return the configuration of an SMoA variant; its orders are random, since a step takes the same time."""
    return SMoAConfig(r=rank, num_subspaces=num_subspaces, partition=partition, target_modules=TARGETS)  # type: ignore[arg-type]


CONFIGS: dict[str, Callable[[int], PeftConfig]] = {
    "lora": lambda rank: LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS),
    "hira": lambda rank: HiraConfig(r=rank, target_modules=TARGETS),
    "smoa_none": lambda rank: smoa("none", 1, rank),
    "smoa_blocks_K1": lambda rank: smoa("random_blocks", 1, rank),
    "smoa_blocks_K2": lambda rank: smoa("random_blocks", 2, rank),
    "smoa_blocks_K4": lambda rank: smoa("random_blocks", 4, rank),
    "smoa_blocks_K2_split": lambda rank: replace(smoa("random_blocks", 2, rank), forward="split"),
    "smoa_energy_K2": lambda rank: smoa("spectral_energy", 2, rank),
}
METHODS = ("lora", "floor", "hira", "published_recipe", *(name for name in CONFIGS if name.startswith("smoa")))


def adapted(model: nn.Module, method: str, rank: int) -> nn.Module:
    """Attach a method to a frozen backbone."""
    model.requires_grad_(False)
    if method == "floor":
        return model
    if method == "published_recipe":
        return attach_recipe(model, TARGETS, rank, 2, decompose=False)
    return attach(model, CONFIGS[method](rank), seed=0)


def real_batch(options: argparse.Namespace, shape: str) -> dict[str, Tensor]:
    """Return the first texts of a file, joined and cut to rows of the same length."""
    rows, length = (int(side) for side in shape.split("x"))
    tokenizer = AutoTokenizer.from_pretrained(options.backbone)
    ids: list[int] = []
    for line in Path(options.rows_file).read_text(encoding="utf-8").splitlines():
        ids += tokenizer(" ".join(str(value) for value in json.loads(line).values()))["input_ids"]
        if len(ids) >= rows * length:
            break
    matrix = torch.tensor(ids[: rows * length]).view(rows, length)
    labels = matrix.clone()
    labels[:, : length // 2] = -100
    batch = {"input_ids": matrix, "attention_mask": torch.ones_like(matrix), "labels": labels}
    return {name: values.to(options.device) for name, values in batch.items()}


def make_step(options: argparse.Namespace, method: str, model: nn.Module) -> Callable[[dict[str, Tensor]], None]:
    """Return a function that does one optimizer step of a method on a batch."""
    model = adapted(model, method, options.rank).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4) if trained else None
    if method == "floor":  # every adapter method also needs the input gradient
        model.get_input_embeddings().register_forward_hook(lambda *args: args[2].requires_grad_())  # type: ignore[operator]

    def step(batch: dict[str, Tensor]) -> None:
        loss, targets = summed_cross_entropy(*target_logits(model, batch))
        (loss / targets).backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        if options.device == "cuda":
            torch.cuda.synchronize()

    return step


def backbone_of(options: argparse.Namespace) -> nn.Module:
    """Load the frozen backbone."""
    config = BackboneConfig("local", path=options.backbone, dtype=options.dtype, attn_implementation=options.attention)
    return load_model(config, locate(config)).to(options.device)


# ------------------------------------------------------------------------------------------------ time


def timed(options: argparse.Namespace, shape: str) -> dict[str, list[float]]:
    """Return the seconds of a step of every method, round by round."""
    batch = real_batch(options, shape)
    steps = {method: make_step(options, method, backbone_of(options)) for method in options.methods}
    times: dict[str, list[float]] = {method: [] for method in steps}
    for round_number in range(options.rounds + 2):
        for method, step in steps.items():
            start = time.perf_counter()
            step(batch)
            if round_number >= 2:  # the first rounds fill caches and scratch memory
                times[method].append(time.perf_counter() - start)
    return times


# ------------------------------------------------------------------------------------------------ memory


def peak_growth(options: argparse.Namespace, method: str, shape: str) -> float:
    """Return the peak megabytes of four steps of a method, in addition to the loaded model, in this process."""
    model, batch = backbone_of(options), real_batch(options, shape)
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    step = make_step(options, method, model)
    for _ in range(4):
        step(batch)
    peak = torch.cuda.max_memory_allocated() if options.device == "cuda" else _resident("VmHWM")
    return (peak - before) / 1e6


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def peaks(options: argparse.Namespace, shape: str) -> dict[str, list[float]]:
    """Return the peak growth of every method; each measurement runs in a separate process."""
    found: dict[str, list[float]] = {method: [] for method in options.methods}
    for _ in range(options.rounds):
        for method in options.methods:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", method, "--shapes", shape]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[method].append(float(out.split()[-1]))
    return found


def main() -> None:
    """Measure all methods in rounds and print a Markdown table for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_backbone_arguments(parser)
    parser.add_argument("--rows-file", required=True, help="file of JSON lines with texts as values")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="lora is always measured")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), help="ROWSxTOKENS")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead of time")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    quiet_libraries()
    if options.one:
        print(peak_growth(options, options.one, options.shapes[0]))
        return
    options.methods = ["lora", *(method for method in options.methods if method != "lora")]
    peers = [peer for peer in ("lora", "hira", "published_recipe") if peer in options.methods]
    for shape in options.shapes:
        values = peaks(options, shape) if options.memory else timed(options, shape)
        print(f"\n{shape} tokens, {options.dtype}, {torch.get_num_threads()} thread(s), {options.rounds} rounds")
        unit = "MB, median" if options.memory else "seconds, median"
        print(f"| method | {' | '.join(f'/ {peer}' for peer in peers)} | {unit} |\n|{'---|' * (len(peers) + 2)}")
        for method, own in values.items():
            ratios = [spread(own, values[peer]) for peer in peers]
            print(f"| {method} | {' | '.join(ratios)} | {statistics.median(own):.3g} |", flush=True)


if __name__ == "__main__":
    main()

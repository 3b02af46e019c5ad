"""Time of a training step of strategies, as ratios to LoRA, measured in one run.

Every strategy is attached to its own copy of the same backbone. Each round times all strategies, so that a slow minute
of the machine affects all of them. A ratio is relative to LoRA in the same round; the script prints median and
quartiles over the rounds. A step is forward, loss, backward and AdamW on a fixed batch of random tokens.

    python benchmarks/step_time.py --backbone FOLDER --suite equal_budget
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from suites import SUITES, Strategy
from turns import add_backbone_arguments, spread

from smoa_lightning.adapters import attach
from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate
from smoa_lightning.common.quiet import quiet_libraries
from smoa_lightning.configuration import expand_bases
from smoa_lightning.evaluation.scoring import summed_cross_entropy, target_logits
from smoa_lightning.training.cli import FineTuneCLI

ROOT = Path(__file__).parents[1]


def config_of(strategy: Strategy) -> object:
    """Return the ``peft.PeftConfig`` of a strategy, read in the same way as on the command line."""
    files = [ROOT / "experiments" / "piqa.yaml", ROOT / "experiments" / "adapters" / f"{strategy.overlay}.yaml"]
    arguments = [part for file in files for part in ("--config", str(file))]
    flags = ["--model.backbone.source", "embedded", *strategy.flags]
    return FineTuneCLI(expand_bases([*arguments, *flags]), run=False).model.adapter_config


def make_step(options: argparse.Namespace, strategy: Strategy) -> Callable[[], None]:
    """Return a function that does one optimizer step of a strategy."""
    backbone = BackboneConfig(
        "local", path=options.backbone, dtype=options.dtype, attn_implementation=options.attention
    )
    model = load_model(backbone, locate(backbone)).to(options.device).requires_grad_(False)
    model = attach(model, config_of(strategy), seed=0).train()  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 1000, (options.rows, options.tokens), generator=generator).to(options.device)
    labels = ids.clone()
    labels[:, : options.tokens // 2] = -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    def step() -> None:
        loss, targets = summed_cross_entropy(*target_logits(model, batch))
        (loss / targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        if options.device == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    """Time all strategies in rounds and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_backbone_arguments(parser, dtype="bfloat16")
    parser.add_argument("--suite", default="equal_budget", choices=list(SUITES))
    parser.add_argument(
        "--strategies", nargs="+", help="strategies of the suite (default: all); LoRA is always measured"
    )
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    quiet_libraries()
    suite = SUITES[options.suite]
    names = ["lora", *(name for name in options.strategies or suite if name != "lora")]
    steps = {name: make_step(options, suite[name]) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(options.rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_number:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    print(f"{options.rows} x {options.tokens} tokens, {options.dtype}, {torch.get_num_threads()} thread(s)")
    print("| strategy | step time relative to LoRA: median (quartiles) | seconds, median |\n|---|---|---|")
    for name in names:
        print(f"| {name} | {spread(times[name], times['lora'])} | {statistics.median(times[name]):.2f} |")


if __name__ == "__main__":
    main()

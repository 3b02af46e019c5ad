"""Time to attach an adapter to every target of a backbone, as ratios to a singular value decomposition of every target.

The published recipe does this decomposition at injection and again at every load: a thin SVD of each adapted weight in
float32. The script attaches SMoA with spectral blocks and times three cases. The first time, spectra are computed and
cached on disk. The second time, spectra are read. In the third case a saved adapter folder has the orders. Loading the
backbone is not timed. ``--widths`` shows instead how the time for one weight's orders grows with its size, compared
with the SVD, up to 4096 x 14336.

    python benchmarks/injection.py --backbone FOLDER --dtype float32
    python benchmarks/injection.py --widths
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from training_step import TARGETS, backbone_of
from turns import add_backbone_arguments, spread

from smoa_lightning.adapters import SMoAConfig, attach
from smoa_lightning.adapters.smoa import subspaces

SIZES = ((256, 256), (512, 512), (1024, 1024), (2048, 2048), (4096, 4096), (1024, 4096), (4096, 14336))


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of a function call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def decompose_all(model: nn.Module) -> None:
    """Compute the SVD of every target."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in TARGETS:
            torch.linalg.svd(module.weight.detach().float(), full_matrices=False)


def inject(model: nn.Module) -> nn.Module:
    """Attach SMoA to every target."""
    config = SMoAConfig(r=32, num_subspaces=2, partition="spectral_blocks", target_modules=TARGETS)
    return attach(model, config, seed=0)


def one_round(options: argparse.Namespace) -> dict[str, float]:
    """Time the SVDs and our three cases once, with a new cache folder."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SMOA_LIGHTNING_CACHE"] = folder
        saved = Path(folder) / "adapter"
        model = backbone_of(options)
        times = {"SVD of every target": seconds(lambda: decompose_all(model))}
        adapted: list[nn.Module] = []
        times["first injection"] = seconds(lambda: adapted.append(inject(model)))
        adapted[0].save_pretrained(saved)  # type: ignore[operator]
        model = backbone_of(options)
        times["injection, spectra kept"] = seconds(lambda: inject(model))
        model = backbone_of(options)
        times["load of a saved adapter"] = seconds(lambda: PeftModel.from_pretrained(model, saved))
    return times


def by_width(rounds: int) -> None:
    """Print how the time for the orders of one weight grows with its size."""
    print("| weight | orders / SVD | orders, seconds | orders: exponent of the size since the last square |")
    print("|---|---|---|---|")
    last: tuple[int, float] | None = None
    for rows, cols in SIZES:
        weight = torch.randn(rows, cols)
        count = rounds if rows * cols < 2**22 else max(2, rounds // 3)
        own, peer = [], []
        for _ in range(count):
            own.append(seconds(lambda weight=weight: subspaces.spectral_orders(weight)))
            peer.append(seconds(lambda weight=weight: torch.linalg.svd(weight, full_matrices=False)))
        middle, power = statistics.median(own), ""
        if rows == cols:
            power = f"{math.log(middle / last[1], rows / last[0]):.2f}" if last else ""
            last = rows, middle
        print(f"| {rows} x {cols} | {spread(own, peer)} | {middle:.3g} | {power} |", flush=True)


def main() -> None:
    """Measure in rounds and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_backbone_arguments(parser, required=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--widths", action="store_true", help="time single weights of growing size")
    options = parser.parse_args()
    if options.widths:
        by_width(options.rounds)
        return
    if options.backbone is None:
        parser.error("give --backbone or --widths")
    rounds = [one_round(options) for _ in range(options.rounds + 1)][1:]  # the first round warms up
    peer = [times["SVD of every target"] for times in rounds]
    print(f"{options.dtype}, {torch.get_num_threads()} thread(s), {options.rounds} rounds")
    print("| what | relative to the SVDs: median (quartiles) | seconds, median |\n|---|---|---|")
    for name in rounds[0]:
        own = [times[name] for times in rounds]
        print(f"| {name} | {spread(own, peer)} | {statistics.median(own):.3g} |")


if __name__ == "__main__":
    main()

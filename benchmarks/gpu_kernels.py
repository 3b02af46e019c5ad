"""Do the Triton kernels of the passes over W pay? Each kernel, and whole training steps, with and without them.

At the widths of LLaMA-3-8B in bfloat16. First errors against float64, then medians of ``triton.testing.do_bench`` for
each layer and tile, then steps of ``gpu_steps.py`` in turn, so that ratios are within a round. ``--compile`` also times
what ``torch.compile`` makes of ``W + s W o (L R)``.

    python benchmarks/gpu_kernels.py --json kernels.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_steps
import torch
from torch import Tensor
from triton.testing import do_bench
from turns import quartiles

from smoa_lightning.adapters.smoa import gradients
from smoa_lightning.adapters.smoa import kernels as choice
from smoa_lightning.adapters.smoa import triton_kernels as kernels

SHAPES = {"q": (4096, 4096), "k": (1024, 4096), "up": (14336, 4096), "down": (4096, 14336)}
FILLS = [(64, 128, 4), (128, 128, 8), (64, 256, 8), (64, 64, 4)]
THINS = [(64, 256, 16, 8), (128, 128, 8, 8), (64, 128, 16, 4), (64, 128, 16, 8)]


def random(*shape: int) -> Tensor:
    """Return random numbers in bfloat16 on the device."""
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16)


def error(found: Tensor, expected: Tensor) -> float:
    """Return the relative error in the Frobenius norm."""
    return float((found.double() - expected).norm() / expected.norm())


def median(call: Callable[[], Any]) -> float:
    """Return the median milliseconds of a call."""
    return float(do_bench(call, warmup=5, rep=30, return_mode="median"))


def halves(size: int) -> Tensor:
    """Return a random half of the indices, ascending."""
    return torch.randperm(size, device="cuda")[: size // 2].sort().values


def fills(name: str, rank: int) -> dict[str, Any]:
    """Time ``W + s W o (L R)``."""
    (m, n), out = SHAPES[name], random(*SHAPES[name])
    W, L, R = random(m, n), random(m, rank) / rank**0.5, random(rank, n)

    def separate() -> None:
        torch.mm(L, R, out=out)
        torch.addcmul(W, W, out, value=0.5, out=out)

    found: dict[str, Any] = {"torch": median(separate)}
    exact = W.double() * (1 + 0.5 * (L.double() @ R.double()))
    found["error of torch"] = error(out, exact)
    for tile in FILLS:
        kernels.FILL.update(zip(("BLOCK_M", "BLOCK_N", "num_warps"), tile, strict=True))
        found[str(tile)] = median(lambda: kernels.fill(out, W, W, L, R, 0.5, True))
        found[f"error of {tile}"] = error(out, exact)
    found["GB"] = 4e-9 * m * n
    return found


def thins(name: str, rank: int, blocks: bool) -> dict[str, Any]:
    """Time the products of ``H = G o W``, for a whole weight or for one of two blocks."""
    W = random(*SHAPES[name])
    i, j = (halves(size) for size in W.shape) if blocks else (None, None)
    chosen = W if i is None or j is None else W[i][:, j]
    m, n = chosen.shape
    G, L, R = random(m, n), random(m, rank), random(rank, n)
    scratch = torch.empty_like(G)

    def separate() -> tuple[Tensor, Tensor]:
        M = W if i is None or j is None else W.index_select(0, i).index_select(1, j)
        h = torch.mul(G, M, out=scratch)
        return h @ R.t(), L.t() @ h

    H = G.double() * chosen.double()
    exact = H @ R.double().t(), L.double().t() @ H
    found: dict[str, Any] = {"torch": median(separate)}
    found["error of torch"] = max(map(error, separate(), exact))
    for tile in THINS:
        kernels.THIN.update(zip(("BLOCK_M", "BLOCK_N", "STEPS", "num_warps"), tile, strict=True))
        found[str(tile)] = median(lambda: kernels.thin_products(G, W, L, R, i, j))
        found[f"error of {tile}"] = max(map(error, kernels.thin_products(G, W, L, R, i, j), exact))
    return found


def best(found: dict[str, dict[str, Any]], tiles: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the tile with the least time in all layers together."""
    return min(tiles, key=lambda tile: sum(times[str(tile)] for times in found.values()))


def compiled(name: str = "up", rank: int = 32) -> dict[str, float]:
    """Time what the compiler makes of ``W + s W o (L R)``."""
    m, n = SHAPES[name]
    W, L, R = random(m, n), random(m, rank), random(rank, n)
    found = {}
    for mode in ("default", "max-autotune-no-cudagraphs"):
        call = torch.compile(lambda W, L, R: W + 0.5 * W * (L @ R), mode=mode)
        found[mode] = median(lambda call=call: call(W, L, R))  # type: ignore[misc]
    return found


def steps(options: argparse.Namespace, batch: int) -> dict[str, Any]:
    """Time whole steps in turn: LoRA; the whole g^T x or gathered blocks of it, both without and with the kernels."""
    options.batch, found = batch, {}
    lora = gpu_steps.Step(options, "lora")
    for method in ("smoa_none", "smoa_blocks_K2", "smoa_blocks_K4"):
        step = gpu_steps.Step(options, method)
        names = ["lora", "whole", "whole, kernels", "gathered", "gathered, kernels"][
            : 3 if method == "smoa_none" else 5
        ]
        times: dict[str, list[float]] = {name: [] for name in names}
        for number in range(options.rounds + 3):
            for name, own in times.items():
                use(name)
                seconds = (lora if name == "lora" else step)()
                if number >= 3:
                    own.append(seconds)
        found[method] = {}
        for name, own in times.items():
            use(name)
            ratios = [a / b for a, b in zip(own, times["lora"], strict=True)]
            found[method][name] = {
                "ms": 1e3 * statistics.median(own),
                "/ lora": [round(ratio, 3) for ratio in quartiles(ratios)],
                "busy": busy(lora if name == "lora" else step),
                "peak_mb": (lora if name == "lora" else step).peak(),
            }
        print(batch, method, json.dumps(found[method]), flush=True)
        del step
    return found


def use(name: str) -> None:
    """Switch the kernels and the gathered blocks on or off."""
    choice.IN_USE = "kernels" in name
    gradients.gather_pays = lambda *_: "gathered" in name  # type: ignore[assignment]


def busy(step: gpu_steps.Step) -> list[float]:
    """Return the milliseconds for which the GPU is busy in a step, and the number of its kernels."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        step.make()
        torch.cuda.synchronize()
    events = [event for event in profiler.key_averages() if not event.key.startswith("Optimizer")]
    return [sum(event.self_device_time_total for event in events) / 1e3, sum(event.count for event in events)]


def main() -> int:
    """Measure, print and write the JSON file after each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32], help="rows of 256 tokens in a step")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    options.device, options.mode, options.layers, options.tokens, options.tiny = "cuda", "eager", 2, 256, False
    found: dict[str, Any] = {"device": torch.cuda.get_device_name()}
    began = time.perf_counter()

    def note(name: str, value: Any) -> Any:
        found[name] = value
        Path(options.json).write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(f"{name} ({time.perf_counter() - began:.0f} s): {json.dumps(value)}", flush=True)
        return value

    torch.manual_seed(0)
    for rank in (64, 32):
        times = note(f"fill, rank {rank}", {name: fills(name, rank) for name in SHAPES})
    fill = note("best fill", best(times, FILLS))
    whole = note("thin", {name: thins(name, 32, False) for name in SHAPES})
    blocks = note("thin, blocks", {name: thins(name, 32, True) for name in SHAPES})
    thin = note("best thin", best({**whole, **{f"{name} blocks": own for name, own in blocks.items()}}, THINS))
    kernels.FILL.update(zip(("BLOCK_M", "BLOCK_N", "num_warps"), fill, strict=True))
    kernels.THIN.update(zip(("BLOCK_M", "BLOCK_N", "STEPS", "num_warps"), thin, strict=True))
    for batch in options.batches:
        note(f"steps of {batch} rows", steps(options, batch))
    if options.compile:
        note("torch.compile", compiled())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

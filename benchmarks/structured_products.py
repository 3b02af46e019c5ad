"""Where FFT beats the dense matrix: forward and backward of SURM's structured products, as ratios.

For each structure, size b of a tile, number of tiles a side, number of tokens and dtype: the time of the product through
the dense matrix over that through FFT (above 1: FFT is faster), and the time of the faster one over that of a frozen
linear layer of the same shape (forward and input gradient). The paths are timed in turns, and the medians are
compared, so that other load on the machine hits them alike. `FFT_FROM` in `adapters/surm/structured.py` comes from here.

    OMP_NUM_THREADS=1 python benchmarks/structured_products.py --threads 1
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from smoa_lightning.adapters.surm.structured import (
    Structure,
    factor_shapes,
    fft_is_faster,
    kronecker_product,
    structured_product,
)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def medians(functions: dict[str, Callable[[], None]], repeats: int, seconds: float) -> dict[str, float]:
    """Median time of each function, timed in turns; at most ``repeats`` turns, and about ``seconds`` in all."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    start = time.perf_counter()
    while len(times[next(iter(times))]) < 3 or (
        time.perf_counter() - start < seconds and len(times[next(iter(times))]) < repeats
    ):
        for name, function in functions.items():
            before = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - before)
    return {name: statistics.median(values) for name, values in times.items()}


def products(
    structure: Structure, size: int, tiles: int, tokens: int, dtype: torch.dtype, terms: int
) -> dict[str, Callable[[], None]]:
    """The competitors: forward and backward of both paths, of a frozen layer, or of the Kronecker product."""
    n = size * tiles
    x = torch.randn(tokens, n, dtype=dtype, requires_grad=True)
    grad, weight = torch.randn(tokens, n, dtype=dtype), torch.randn(n, n, dtype=dtype)
    left, right = (
        torch.randn(shape, requires_grad=True)
        for shape in factor_shapes(structure, n, n, size if tiles > 1 else None, terms)
    )

    def run(result: Tensor) -> None:
        result.backward(grad)

    found = {"frozen": lambda: run(F.linear(x, weight))}
    if structure == "kronecker":
        found["reshape"] = lambda: run(kronecker_product(left[0, 0], right[0, 0], x))
        found["dense"] = lambda: run(F.linear(x, torch.kron(left[0, 0], right[0, 0]).to(dtype)))
        return found
    found["fft"] = lambda: run(structured_product(structure, left, right, x, n, "fft"))
    found["dense"] = lambda: run(structured_product(structure, left, right, x, n, "dense"))
    return found


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", nargs="+", default=["circulant", "toeplitz", "ldr", "kronecker"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 64, 128, 192, 256, 384, 576, 768, 1024, 1536])
    parser.add_argument("--tiles", nargs="+", type=int, default=[1])
    parser.add_argument("--tokens", nargs="+", type=int, default=[64, 768])
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--displacement-rank", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long each case may take")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {options.threads} thread(s); times forward + backward")
    print("| structure | dtype | tokens | tile | tiles a side | dense / fast | fastest / frozen | rule |")
    print("|---|---|---|---|---|---|---|---|")
    wrong = 0
    for structure in options.structures:
        for dtype in options.dtypes:
            for tokens in options.tokens:
                for tiles in options.tiles:
                    for size in options.sizes:
                        case = (structure, size, tiles, tokens, DTYPES[dtype], options.displacement_rank)
                        times = medians(products(*case), options.repeats, options.seconds)
                        fast = times.get("fft", times.get("reshape", 0.0))
                        ratio = times["dense"] / fast
                        best = min(fast, times["dense"]) / times["frozen"]
                        rule = "reshape"
                        if structure != "kronecker":
                            chosen = fft_is_faster(structure, size, tokens, DTYPES[dtype])
                            rule = "fft" if chosen else "dense"
                            loss = 1 / ratio if chosen else ratio
                            if loss > 1.25:
                                rule, wrong = f"{rule} (loses {loss:.2f})", wrong + 1
                        print(
                            f"| {structure} | {dtype} | {tokens} | {size} | {tiles} | {ratio:.2f} | {best:.2f} | {rule} |",
                            flush=True,
                        )
    print(f"cases in which the rule takes a path that is slower by more than a quarter: {wrong}")


if __name__ == "__main__":
    main()

"""FFT compared with the dense matrix: forward and backward of SURM's structured products, as ratios.

A case is a structure, a tile size b, a number of tiles on each side, a number of tokens and a dtype. The script prints
two ratios for each case. The first is the time with the dense matrix divided by the time with FFT (above 1: FFT is
faster). The second is the time of the faster path divided by that of a frozen linear layer of the same shape (forward
and input gradient). The paths are timed alternately, so that other load on the machine affects them equally; medians
are compared. `FFT_FROM` in `adapters/surm/structured.py` was chosen from these ratios.

    OMP_NUM_THREADS=1 python benchmarks/structured_products.py --threads 1

With ``--matrices`` it instead times the dense matrices of `toeplitz` and `ldr`, as merging and ranks need them: the
product of two structured matrices, divided by the same matrix from its displacement (`adapters/surm/displacement.py`).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from smoa_lightning.adapters.surm import displacement
from smoa_lightning.adapters.surm.structured import (
    Structure,
    factor_shapes,
    fft_is_faster,
    kronecker_product,
    structured_matrix,
    structured_product,
)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def medians(functions: dict[str, Callable[[], None]], repeats: int, seconds: float) -> dict[str, float]:
    """Return the median time of each function, timed alternately, for at most ``repeats`` rounds and about ``seconds``.

    With one thread the CPU time is measured, since other processes affect it less.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    start, turns = time.perf_counter(), 0
    while turns < 3 or (turns < repeats and time.perf_counter() - start < seconds):
        for name, function in functions.items():
            before = clock()
            function()
            times[name].append(clock() - before)
        turns += 1
    return {name: statistics.median(values) for name, values in times.items()}


def products(
    structure: Structure, size: int, tiles: int, tokens: int, dtype: torch.dtype, terms: int
) -> dict[str, Callable[[], None]]:
    """Return the timed functions: forward and backward of both paths, of a frozen layer, or of a Kronecker product."""
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


def chosen(structure: Structure, size: int, tiles: int, tokens: int, dtype: torch.dtype, terms: int) -> str:
    """Return the path that this library uses for a case."""
    n = size * tiles
    left = torch.empty(factor_shapes(structure, n, n, size, terms)[0], device="meta")
    return "fft" if fft_is_faster(structure, left, torch.empty(tokens, n, dtype=dtype, device="meta"), n) else "dense"


def print_matrices(sizes: list[int], terms: int, repeats: int, seconds: float) -> None:
    """Print one line for each structure and size."""
    print("| structure | terms | size | product / displacement |")
    print("|---|---|---|---|")
    kinds: list[tuple[Structure, int]] = [("toeplitz", 1), ("ldr", terms)]
    for (structure, count), n in itertools.product(kinds, sizes):
        left, right = (torch.randn(shape) for shape in factor_shapes(structure, n, n, None, count))

        def build(
            limit: int, structure: Structure = structure, n: int = n, left: Tensor = left, right: Tensor = right
        ) -> None:
            displacement.MULTIPLIED_UP_TO = {False: limit, True: limit}
            structured_matrix(structure, left, right, n, n)

        times = medians({"product": lambda: build(10**9), "displacement": lambda: build(0)}, repeats, seconds)
        print(f"| {structure} | {count} | {n} | {times['product'] / times['displacement']:.1f} |", flush=True)


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--structures", nargs="+", default=["circulant", "toeplitz", "toeplitz_hadamard", "ldr", "kronecker"]
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 64, 128, 192, 256, 384, 576, 768, 1024, 1536])
    parser.add_argument("--tiles", nargs="+", type=int, default=[1])
    parser.add_argument("--tokens", nargs="+", type=int, default=[64, 768])
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--displacement-rank", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2.0, help="approximate time limit of each case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--matrices", action="store_true", help="time dense matrices instead of products")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.matrices:
        print_matrices(options.sizes, options.displacement_rank, options.repeats, options.seconds)
        return
    print(f"torch {torch.__version__}, {options.threads} thread(s); times forward + backward")
    print("| structure | dtype | tokens | tile | tiles on a side | dense / fast | fastest / frozen | rule |")
    print("|---|---|---|---|---|---|---|---|")
    cases = itertools.product(options.structures, options.dtypes, options.tokens, options.tiles, options.sizes)
    wrong = 0
    for structure, dtype, tokens, tiles, size in cases:
        competitors = products(structure, size, tiles, tokens, DTYPES[dtype], options.displacement_rank)
        times = medians(competitors, options.repeats, options.seconds)
        fast = times.get("fft", times.get("reshape", 0.0))
        rule = "reshape"
        if structure != "kronecker":
            rule = chosen(structure, size, tiles, tokens, DTYPES[dtype], options.displacement_rank)
            loss = times[rule] / min(fast, times["dense"])
            wrong += loss > 1.25
            rule += f" (loses {loss:.2f})" if loss > 1.25 else ""
        cells = [structure, dtype, tokens, size, tiles, f"{times['dense'] / fast:.2f}"]
        cells += [f"{min(fast, times['dense']) / times['frozen']:.2f}", rule]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print(f"cases in which the rule uses a path that is slower by more than a quarter: {wrong}")


if __name__ == "__main__":
    main()

"""Time of attention with its gradient, in CPU seconds, as ratios to torch's own kernel (sdpa).

The kernels are ``eager`` of transformers and ``sdpa_products`` of this package, which a run takes in bfloat16 on a CPU.
Each round measures all kernels, in turned order. Half of the tables have padded rows (a mask), half have full rows.
``--backbone`` measures whole training steps of LoRA instead, of one model whose kernel is changed between steps.

    OMP_NUM_THREADS=1 python benchmarks/attention_kernels.py --shapes smollm2 --dtypes bfloat16
    OMP_NUM_THREADS=1 python benchmarks/attention_kernels.py --backbone smollm2/ --rows-file piqa/train.jsonl
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from training_step import adapted, backbone_of, real_batch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import eager_attention_forward
from turns import add_backbone_arguments, spread

from smoa_lightning.backbones import attention
from smoa_lightning.common.quiet import quiet_libraries
from smoa_lightning.evaluation.scoring import summed_cross_entropy, target_logits

HEADS = {"smollm2": (9, 3, 64), "llama3_8b": (32, 8, 128)}  # heads, key heads, size
KERNELS = ("sdpa", "eager", "sdpa_products")


class Layer(torch.nn.Module):
    """What the kernels read from an attention layer."""

    def __init__(self, groups: int) -> None:
        """Store the number of heads that share a key."""
        super().__init__()
        self.num_key_value_groups, self.is_causal = groups, True


def calls(shape: str, rows: int, tokens: int, dtype: torch.dtype, padded: bool) -> dict[str, Callable[[], None]]:
    """Return a function for each kernel: one forward and backward on the same random tensors."""
    heads, shared, size = HEADS[shape]
    generator = torch.Generator().manual_seed(0)
    made = (torch.randn(rows, n, tokens, size, generator=generator).to(dtype) for n in (heads, shared, shared))
    tensors = [tensor.requires_grad_() for tensor in made]
    grad = torch.randn(rows, tokens, heads, size, generator=generator).to(dtype)
    lengths = torch.randint(tokens // 2 + 1, tokens + 1, (rows,), generator=generator) if padded else tokens
    visible = torch.ones(rows, 1, tokens, tokens, dtype=torch.bool).tril()
    visible &= (torch.arange(tokens) < torch.as_tensor(lengths).expand(rows)[:, None])[:, None, None]
    added = torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)
    layer = Layer(heads // shared)

    def call(function: Callable[..., tuple[Tensor, object]], mask: Tensor | None) -> None:
        output, _ = function(layer, *tensors, mask, scaling=size**-0.5, dropout=0.0)
        torch.autograd.grad(output, tensors, grad)

    own = visible if padded else None
    return {
        "sdpa": lambda: call(sdpa_attention_forward, own),
        "eager": lambda: call(eager_attention_forward, added),
        "sdpa_products": lambda: call(attention.attention, own),
    }


def in_turns(functions: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each function in each round; the first round warms up, every second one is reversed."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name in list(functions) if number % 2 else reversed(functions):
            start = time.process_time()
            functions[name]()
            if number:
                times[name].append(time.process_time() - start)
    return times


def print_row(what: str, times: dict[str, list[float]], names: Sequence[str] = KERNELS) -> None:
    """Print a row of a Markdown table."""
    ratios = " | ".join(spread(times[name], times["sdpa"]) for name in names if name != "sdpa")
    print(f"| {what} | {ratios} | {1e3 * statistics.median(times['sdpa']):.1f} |", flush=True)


def steps(options: argparse.Namespace, shape: str) -> dict[str, Callable[[], None]]:
    """Return a training step for each kernel, of one model with one optimizer."""
    options.attention = None
    model = adapted(backbone_of(options), options.method, 32).train()
    base = model.get_base_model()  # type: ignore[operator]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
    batch = real_batch(options, shape)
    if options.padded:
        batch["attention_mask"][1::2, -(batch["input_ids"].shape[1] // 4) :] = 0
        batch["labels"][batch["attention_mask"] == 0] = -100

    def step(kernel: str) -> None:
        base.set_attn_implementation(kernel)
        loss, targets = summed_cross_entropy(*target_logits(model, batch))
        (loss / targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return {kernel: lambda kernel=kernel: step(kernel) for kernel in KERNELS}  # type: ignore[misc]


def main() -> None:
    """Print a table for each shape, dtype and kind of rows, or one of training steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_backbone_arguments(parser, dtype="bfloat16", required=False, attention=False)
    parser.add_argument("--rows-file", help="file of JSON lines with texts as values, for --backbone")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--padded", action="store_true", help="with --backbone: every second row is shorter")
    parser.add_argument("--steps", nargs="+", default=["16x50", "8x96", "4x256", "4x512"], help="ROWSxTOKENS")
    parser.add_argument("--shapes", nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[32, 64, 128, 256, 512, 1024])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--most-tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    quiet_libraries()
    attention.LONGEST = 2**30  # measures the kernel where a run does not take it, too
    head = f"| {' | '.join(f'{name} / sdpa' for name in KERNELS[1:])} | sdpa, ms |\n|---|---|---|---|"
    if options.backbone:
        print(f"| step of {options.method}, {options.dtype} {head}")
        for shape in options.steps:
            print_row(shape, in_turns(steps(options, shape), options.rounds))
        return
    for shape in options.shapes:
        for name in options.dtypes:
            for padded in (True, False):
                print(f"\n| {shape}, {name}, {'padded' if padded else 'full'} rows {head}")
                for tokens in options.lengths:
                    for rows in options.rows:
                        if rows * tokens <= options.most_tokens:
                            functions = calls(shape, rows, tokens, getattr(torch, name), padded)
                            print_row(f"{rows} x {tokens}", in_turns(functions, options.rounds))


if __name__ == "__main__":
    main()

"""The cost of a quantised backbone: time of a training step and bytes of its weights, as ratios.

SMoA blocks need the frozen weight W itself; LoRA needs only its product. The script trains both for a few steps, with
the backbone in floating point, in int8 and in nf4. SMoA either dequantises W in every forward and backward pass
(`per_forward`) or caches it (`cached`). All models are in memory at once and are timed alternately, so that other load
on the machine affects them equally; medians are compared. The blocks are random. They need no spectrum, and a step
takes the same time.

    OMP_NUM_THREADS=1 python benchmarks/quantised_step.py --backbone smollm2/
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import peft
import torch
from torch import Tensor, nn

from smoa_lightning.adapters import SMoAConfig, attach
from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate
from smoa_lightning.backbones.quantization import quantization
from smoa_lightning.data.encoding.encode import IGNORED
from smoa_lightning.evaluation.scoring import summed_cross_entropy, target_logits

STRATEGIES: dict[str, Callable[[], Any]] = {
    "smoa_blocks": lambda: SMoAConfig(r=32, num_subspaces=2, partition="random_blocks"),
    "lora": lambda: peft.LoraConfig(r=32),
}
# quantization, dequantize, strategies
CASES: list[tuple[Any, Any, list[str]]] = [
    (None, "per_forward", ["smoa_blocks", "lora"]),
    ("int8", "per_forward", ["smoa_blocks", "lora"]),
    ("int8", "cached", ["smoa_blocks"]),
    ("nf4", "per_forward", ["smoa_blocks", "lora"]),
    ("nf4", "cached", ["smoa_blocks"]),
]


def frozen_bytes(model: nn.Module) -> int:
    """Return the bytes of all frozen tensors: weights, scales of quantised weights, and cached dequantised copies."""
    tensors: dict[int, Tensor] = {id(p): p for p in model.parameters() if not p.requires_grad}
    for module in model.modules():
        if "weight" not in module._parameters or quantization(module) is None:
            continue
        layer: Any = module
        state: Any = getattr(layer, "state", None)
        scales = layer.weight.quant_state.absmax if state is None else (state.SCB if state.SCB is not None else None)
        for tensor in (scales, getattr(layer, "kept_dequantized", None)):
            if tensor is not None:
                tensors[id(tensor)] = tensor
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def batch(rows: int, length: int, response: int, vocabulary: int) -> dict[str, Tensor]:
    ids = torch.randint(3, vocabulary, (rows, length))
    labels = torch.full_like(ids, IGNORED)
    labels[:, -response:] = ids[:, -response:]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def trained(model: nn.Module, data: dict[str, Tensor]) -> Callable[[], None]:
    """Return a function that does one optimizer step on a batch."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    model.train()

    def step() -> None:
        loss, count = summed_cross_entropy(*target_logits(model, data))
        (loss / count).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="folder of a causal language model")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--response", type=int, default=8, help="tokens of each row that count for the loss")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
    torch.manual_seed(0)
    models: dict[tuple[str, str], nn.Module] = {}
    for kind, dequantize, strategies in CASES:
        for strategy in strategies:
            config = BackboneConfig(
                "local", path=options.backbone, dtype=options.dtype, quantization=kind, dequantize=dequantize
            )
            label = options.dtype if kind is None else f"{kind} {dequantize}" if strategy != "lora" else kind
            models[strategy, label] = attach(load_model(config, locate(config)), STRATEGIES[strategy](), seed=0)
            print(f"loaded {strategy} over {label}", flush=True)
    vocabulary = next(iter(models.values())).config.vocab_size
    data = batch(options.rows, options.length, options.response, vocabulary)
    steps = {key: trained(model, data) for key, model in models.items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for turn in range(options.turns + 1):
        for key, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:  # the first step fills caches
                times[key].append(time.perf_counter() - start)
        last = ", ".join(f"{' '.join(key)} {values[-1]:.1f}" for key, values in times.items() if values)
        print(f"turn {turn} of {options.turns} (seconds: {last})", flush=True)
    sizes = {key: frozen_bytes(model) for key, model in models.items()}
    reference = {strategy: (strategy, options.dtype) for strategy in STRATEGIES}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {options.rows} x {options.length} tokens")
    print("| strategy | format of the backbone | step, relative to float | step, relative to LoRA | frozen bytes |")
    print("|---|---|---|---|---|")
    medians = {key: statistics.median(values) for key, values in times.items()}
    for (strategy, label), middle in medians.items():
        over_float = middle / medians[reference[strategy]]
        over_lora = middle / medians["lora", label.split()[0]]
        share = sizes[strategy, label] / sizes[reference[strategy]]
        size = f"{sizes[strategy, label] / 1e6:,.0f} MB ({share:.2f})"
        print(f"| {strategy} | {label} | {over_float:.2f} | {over_lora:.2f} | {size} |")


if __name__ == "__main__":
    main()

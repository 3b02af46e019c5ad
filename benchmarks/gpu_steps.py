"""Training steps at the widths of LLaMA-3-8B on an accelerator: ratios to peft's LoRA and HiRA, and peak memory.

Each method adapts q, k, v, up and down of its own model with random weights in bfloat16. A step is forward, loss,
backward and AdamW. All methods run in turn, so ratios are within a round. ``--mode compile`` uses ``torch.compile``;
``--mode graphs`` has CUDA graphs too (``mode="reduce-overhead"``). A method that fails is noted with its error.

    python benchmarks/gpu_steps.py --device cuda --mode eager --json steps.json

``benchmarks/gpu_check.sh`` calls it in all modes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from turns import quartiles

from smoa_lightning.adapters import SMoAConfig, attach
from smoa_lightning.common.quiet import quiet_libraries
from smoa_lightning.embedded import backbone_folder

TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
METHODS = ("lora", "hira", "smoa_none", "smoa_blocks_K2", "smoa_blocks_K4", "floor")
WIDTHS = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
COMPILED = {"compile": {}, "graphs": {"mode": "reduce-overhead"}}


def config_of(method: str, rank: int) -> Any:
    """Return the configuration of a method."""
    from peft import HiraConfig, LoraConfig

    if method == "lora":
        return LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS)
    if method == "hira":
        return HiraConfig(r=rank, target_modules=TARGETS)
    partition, number = ("none", 1) if method == "smoa_none" else ("random_blocks", int(method[-1]))
    return SMoAConfig(r=rank, num_subspaces=number, partition=partition, target_modules=TARGETS)  # type: ignore[arg-type]


def model_of(options: argparse.Namespace, vocabulary: int = 32_000, layers: int | None = None) -> nn.Module:
    """Return a model with random weights."""
    widths = TINY if options.tiny else WIDTHS
    torch.manual_seed(0)
    with torch.device(options.device):
        config = LlamaConfig(vocab_size=vocabulary, num_hidden_layers=layers or options.layers, **widths)
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    return model.requires_grad_(False)


class Step:
    """One training step of a method on a fixed batch."""

    def __init__(self, options: argparse.Namespace, method: str) -> None:
        self.device, model = options.device, model_of(options)
        if method == "floor":
            model.get_input_embeddings().register_forward_hook(lambda *args: args[2].requires_grad_())  # type: ignore[operator]
        else:
            model = attach(model, config_of(method, 4 if options.tiny else 32), seed=0)
        self.model = model.train()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=self.device == "cuda") if trained else None
        self.ids = torch.randint(5, 500, (options.batch, options.tokens), device=self.device)
        self.call: Callable[..., Any] = self.model
        if options.mode != "eager":
            torch._dynamo.reset()
            how: dict[str, Any] = {"backend": "aot_eager"} if options.tiny else COMPILED[options.mode]
            self.call = torch.compile(self.model, **how)

    def loss(self) -> Tensor:
        """Return the cross-entropy of the second half of each row."""
        half = self.ids.shape[1] // 2
        logits = self.call(input_ids=self.ids, use_cache=False).logits[:, half - 1 : -1]
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), self.ids[:, half:].flatten())

    def make(self) -> None:
        """Make the step, without waiting for the device."""
        self.loss().backward()
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()

    def __call__(self) -> float:
        """Make the step; return its seconds."""
        self.synchronise()
        start = time.perf_counter()
        self.make()
        self.synchronise()
        return time.perf_counter() - start

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def peak(self) -> float:
        """Return the megabytes by which allocated memory grows in a step; 0 without CUDA."""
        if self.device != "cuda":
            return 0.0
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self()
        return (torch.cuda.max_memory_allocated() - before) / 1e6


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds, ratios, peak memory and errors of all methods."""
    steps: dict[str, Step] = {}
    errors: dict[str, str] = {}
    found: dict[str, Any] = {}
    began = time.perf_counter()
    for method in options.methods:
        if options.seconds is not None and time.perf_counter() - began > options.seconds:
            errors[method] = "no time left"
            continue
        try:
            step = Step(options, method)
            for _ in range(3):  # compiles, records graphs and fills caches
                step()
            found[method] = {"peak_mb": step.peak()}
            steps[method] = step
        except Exception as error:
            errors[method] = f"{type(error).__name__}: {error}"[:500]
        print(f"{method}: ready after {time.perf_counter() - began:.0f} s {errors.get(method, '')}", flush=True)
    times: dict[str, list[float]] = {method: [] for method in steps}
    for _ in range(options.rounds):
        for method, step in steps.items():
            times[method].append(step())
    for method, own in times.items():
        found[method]["seconds"] = statistics.median(own)
        for peer in [name for name in ("lora", "hira") if name in times]:
            found[method][f"/ {peer}"] = quartiles([a / b for a, b in zip(own, times[peer], strict=True)])
    return {"mode": options.mode, "tokens": [options.batch, options.tokens], "methods": found, "errors": errors}


def make_backbone(options: argparse.Namespace) -> None:
    """Save a model with random weights and the embedded tokenizer, so that scoring has a model of real widths."""
    source, target = backbone_folder(), Path(options.make_backbone)
    vocabulary = json.loads((source / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    model_of(options, vocabulary, 4).save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, target / name)


def main() -> int:
    """Measure, print and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mode", choices=("eager", "compile", "graphs"), default="eager")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, help="no further method is prepared after this time")
    parser.add_argument("--tiny", action="store_true", help="tiny widths, to try the script on a CPU")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--make-backbone", help="only save a model with random weights to this folder")
    options = parser.parse_args()
    quiet_libraries()
    if options.make_backbone:
        make_backbone(options)
        return 0
    results = measure(options)
    print(json.dumps(results, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 1 if results["errors"] else 0


if __name__ == "__main__":
    raise SystemExit(main())

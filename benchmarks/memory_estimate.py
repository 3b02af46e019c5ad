"""The memory that ``params`` estimates against the real peak of training steps on the CPU.

Each case is a process of its own: it imports everything, loads the backbone, attaches the adapter and makes two
training steps on random tokens. The measured peak is the largest resident memory in the second step, less the
resident memory before the backbone is loaded (Python, libraries). ``MALLOC_MMAP_THRESHOLD_=131072`` lets the C library
return every freed block of 128 KiB or more to the system. ``--default_allocator`` measures without it, too: the
difference is what the allocator adds.

    python benchmarks/memory_estimate.py --cases lora:embedded:float32:32x256 full:/models/a:bfloat16:4x128
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CASE = "STRATEGY:BACKBONE:DTYPE:ROWSxLENGTH[:checkpointing]"
EMBEDDED = [
    *(f"{name}:embedded:float32:32x256" for name in ("lora", "smoa_blocks", "smoa_energy", "hira", "full")),
    *(f"{name}:embedded:float32:32x256" for name in ("surm_circulant", "mora", "bottleneck")),
    *("lora:embedded:float32:32x256:checkpointing", "lora:embedded:bfloat16:32x256", "full:embedded:bfloat16:32x256"),
]


def resident(field: str = "VmRSS") -> int:
    """Return a number of bytes from the status of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024


def module_of(case: str) -> tuple[Any, Any]:
    """Return the module of a case and the shape of its batch."""
    import importlib

    import yaml

    from smoa_lightning.backbones.backbone import BackboneConfig
    from smoa_lightning.training.memory.step import StepShape
    from smoa_lightning.training.module import FineTuneModule

    name, backbone, dtype, size, *rest = case.split(":")
    where = {"source": "embedded"} if backbone == "embedded" else {"source": "local", "path": backbone}
    config = BackboneConfig(dtype=dtype, gradient_checkpointing=bool(rest), **where)  # type: ignore[arg-type]
    file = ROOT / "experiments" / "adapters" / f"{name}.yaml"
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))["model"]["adapter"]
    adapter = None
    if settings is not None:
        package, _, kind = settings["class_path"].rpartition(".")
        adapter = getattr(importlib.import_module(package), kind)(**settings.get("init_args", {}))
    rows, length = map(int, size.split("x"))
    return FineTuneModule(config, adapter), StepShape(rows, length, length - 1)


def measure(case: str) -> dict[str, float]:
    """Make two training steps; return their peak above the process without a model, that process, and seconds."""
    import torch

    from smoa_lightning.adapters import attach
    from smoa_lightning.backbones.backbone import load_model
    from smoa_lightning.evaluation.scoring import summed_cross_entropy, target_logits
    from smoa_lightning.training.optimizer import make_optimizer

    module, shape = module_of(case)
    layer = torch.nn.Linear(64, 64)
    layer(torch.randn(8, 64)).sum().backward()  # thread pools and libraries that load late
    gc.collect()
    before = resident()
    model = load_model(module.backbone_config, module.location).requires_grad_(module.adapter_config is None)
    if module.adapter_config is not None:
        model = attach(model, module.adapter_config, 0)  # type: ignore[assignment]
    model.train()
    optimizer = make_optimizer(module.optimizer_factory, [p for p in model.parameters() if p.requires_grad])
    ids = torch.randint(5, 1000, (shape.rows, shape.length))
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # a batch with padding, as most batches of a run
    labels = ids.masked_fill(mask == 0, -100)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    began = time.perf_counter()
    for step in range(2):
        if step == 1:
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
        loss, _ = summed_cross_entropy(*target_logits(model, batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds, began = time.perf_counter() - began, time.perf_counter()
    return {"measured": resident("VmHWM") - before, "libraries": before, "seconds": seconds}


def estimate(case: str) -> int:
    """Return the estimated peak of a case."""
    from smoa_lightning.training.memory.estimate import estimate_memory

    module, shape = module_of(case)
    step = estimate_memory(module, shape).configured
    if isinstance(step, str):
        sys.exit(step)
    return step.total


def child(task: str, case: str, **environment: str) -> Any:
    """Run a task of this script in a process of its own."""
    command = [sys.executable, __file__, "--task", task, "--cases", case]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a Markdown table with a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=EMBEDDED, help=CASE)
    parser.add_argument("--default_allocator", action="store_true", help="measure with the default allocator, too")
    parser.add_argument("--task", choices=["estimate", "measure"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task is not None:
        print(json.dumps(measure(options.cases[0]) if options.task == "measure" else estimate(options.cases[0])))
        return
    titles = [
        "strategy",
        "backbone",
        "dtype",
        "rows x tokens",
        "checkpointing",
        "estimate, MB",
        "measured, MB",
        "ratio",
    ]
    titles += ["s a step"]
    if options.default_allocator:
        titles += ["default allocator, MB", "s a step"]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}", flush=True)
    for case in options.cases:
        name, backbone, dtype, size, *rest = case.split(":")
        expected, exact = child("estimate", case), child("measure", case, MALLOC_MMAP_THRESHOLD_="131072")
        cells = [name, Path(backbone).name, dtype, size, "yes" if rest else "no", f"{expected / 1e6:,.0f}"]
        cells += [f"{exact['measured'] / 1e6:,.0f}", f"{expected / exact['measured']:.2f}", f"{exact['seconds']:.2f}"]
        if options.default_allocator:
            plain = child("measure", case)
            cells += [f"{plain['measured'] / 1e6:,.0f}", f"{plain['seconds']:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""Rows per second of an epoch: our pipeline compared with the published recipe, on the same batches of rows.

Our pipeline has unpadded rows in batches of similar length, and SMoA blocks with K = 2. The recipe pads every sequence
of the same batches on the left to 256 + 16 tokens, and uses a dense update (``published_recipe.py``). Both do the same
steps, alternating batch by batch. Tokenisation is not timed.

    python benchmarks/epoch.py --backbone FOLDER --data FOLDER_OF_PIQA --dtype bfloat16
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor
from torch.nn import functional as F
from training_step import backbone_of, make_step
from transformers import AutoTokenizer
from turns import add_backbone_arguments, spread

from smoa_lightning.data.datamodule import TaskDataModule

LENGTH = 256 + 16


def batches_of(options: argparse.Namespace) -> list[dict[str, Tensor]]:
    """Return the batches of the first epoch from the data module."""
    data = TaskDataModule(
        "piqa", "local", path=options.data, batch_size=options.batch_size, selection_rows=0, cache=False
    )
    data.tokenizer = AutoTokenizer.from_pretrained(options.backbone)
    data.setup("fit")
    names = ("input_ids", "attention_mask", "labels")
    return [{name: batch[name] for name in names} for batch in data.train_dataloader()]


def padded(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same rows padded on the left to one length; a longer row keeps its end."""
    rows = []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        count = min(int(mask.sum()), LENGTH)
        start = int(mask.sum()) - count
        parts = [(ids, 0), (mask, 0), (labels, -100)]
        rows.append([F.pad(values[start : start + count], (LENGTH - count, 0), value=fill) for values, fill in parts])
    names = ("input_ids", "attention_mask", "labels")
    return {name: torch.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def main() -> None:
    """Do the same steps alternately with both pipelines and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_backbone_arguments(parser, dtype="bfloat16")
    parser.add_argument("--data", required=True, help="folder with train.jsonl and validation.jsonl of PIQA")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, help="number of steps, spread over the epoch (default: all)")
    options = parser.parse_args()
    batches = batches_of(options)
    if options.steps:
        batches = batches[:: max(1, len(batches) // options.steps)][: options.steps]
    methods = {"published recipe, padded": "published_recipe", "smoa_blocks, our pipeline": "smoa_blocks_K2"}
    steps = {name: make_step(options, method, backbone_of(options)) for name, method in methods.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    tokens = dict.fromkeys(steps, 0)
    for number, batch in enumerate([batches[0], *batches]):
        for name, step in steps.items():
            own = padded(batch) if "padded" in name else batch
            start = time.perf_counter()
            step(own)
            if number:  # the first step warms up
                times[name].append(time.perf_counter() - start)
                tokens[name] += own["input_ids"].numel()
    rows = sum(len(batch["input_ids"]) for batch in batches)
    recipe, _ = times.values()
    print(f"{rows} rows, {len(batches)} steps, {options.dtype}, {torch.get_num_threads()} thread(s)")
    print("| pipeline | rows/s relative to the recipe, whole | by step: median (quartiles) | rows/s | tokens |")
    print("|---|---|---|---|---|")
    for name, own in times.items():
        whole = sum(recipe) / sum(own)
        print(f"| {name} | {whole:.2f} | {spread(recipe, own)} | {rows / sum(own):.2f} | {tokens[name]} |")
    print(f"median seconds a step: {', '.join(f'{name} {statistics.median(own):.3g}' for name, own in times.items())}")


if __name__ == "__main__":
    main()

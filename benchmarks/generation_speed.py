"""Replies per second under the generation protocol: batches of prompts compared with single prompts.

Both cases use this project's evaluation of a task (prompts, greedy search with a cache of keys and values, stop texts).
Only the number of prompts in a forward pass differs: left-padded batches or single prompts. In every round each case
generates all replies once; ratios are within a round. Single prompts are not padded, so the script counts different
replies. Exact arithmetic would give none; in float32 rounding changes few.

    python benchmarks/generation_speed.py --backbone FOLDER --data FOLDER --rows 64 --threads 2
    python benchmarks/generation_speed.py --backbone FOLDER --data FOLDER --dtype bfloat16 --tasks gsm8k

``--data`` has a folder for each task, with ``validation.jsonl`` in the task's Hub schema. The gain depends on the
replies. For long replies (gsm8k) most of the time is reading the weights for each token, which a batch does once for
all prompts. Choice tasks have a prompt of about a hundred tokens and an answer of a few tokens; a batch cannot reduce
the arithmetic of the prompt.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
from turns import add_backbone_arguments, spread

from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate
from smoa_lightning.backbones.tokenizer import load_tokenizer
from smoa_lightning.data.batches.loaders import scoring_loader
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.evaluation.reply import ReplyEvaluator

TASKS = ("gsm8k", "piqa")


def write_replies(evaluator: ReplyEvaluator, model: Any, items: list[Any], batch_size: int, pad: int) -> dict[int, str]:
    """Generate the reply of every item, in batches of the project's loader."""
    found: dict[int, str] = {}
    for batch in scoring_loader(items, batch_size, None, pad):
        with torch.inference_mode():
            replies = evaluator.replies(model, batch["prompt"])
        found |= dict(zip(batch["row"].tolist(), replies, strict=True))
    return found


def measure(task: str, model: Any, tokenizer: Any, options: argparse.Namespace, folder: Path) -> None:
    """Print the table row of a task."""
    rows = folder / f"{task}.jsonl"
    with (Path(options.data) / task / "validation.jsonl").open(encoding="utf-8") as stream:
        rows.write_text("".join(itertools.islice(stream, options.rows)), encoding="utf-8")
    path = {"validation": str(rows)}
    data = TaskDataModule(task, "local", path=path, report_split="validation", protocol="generation", max_length=1024)
    data.tokenizer = tokenizer
    sets = data.sets.reported[task]
    items = list(sets.items("report"))
    protocol: Any = sets.protocol
    evaluator = ReplyEvaluator(protocol, tokenizer, options.max_new_tokens, ends=sets.reply_ends())
    sizes = {"one": 1, "batch": options.batch_size}
    times: dict[str, list[float]] = {name: [] for name in sizes}
    written: dict[str, dict[int, str]] = {}
    for size in sizes.values():
        write_replies(evaluator, model, items[: min(size, 2)], size, tokenizer.pad_token_id)  # warms up
    for _ in range(options.rounds):
        for name, size in sizes.items():
            start = time.perf_counter()
            written[name] = write_replies(evaluator, model, items, size, tokenizer.pad_token_id)
            if options.device == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    differing = sum(written["one"][row] != reply for row, reply in written["batch"].items())
    lengths = [len(tokenizer(reply).input_ids) for reply in written["one"].values()]
    cells = [task, str(len(items)), f"{statistics.fmean(len(item.prompt) for item in items):.0f}"]
    cells += [f"{statistics.fmean(lengths):.0f} / {max(lengths)}", spread(times["one"], times["batch"])]
    cells += [f"{len(items) / statistics.median(times[name]):.2f}" for name in ("batch", "one")]
    print("| " + " | ".join([*cells, str(differing)]) + " |", flush=True)


def main() -> None:
    """Measure all tasks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_backbone_arguments(parser, attention=False)
    parser.add_argument("--data", required=True, help="folder with TASK/validation.jsonl")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--rows", type=int, default=64, help="number of rows from the start of each file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16, help="prompts in a batch, data.eval_batch_size")
    parser.add_argument("--max-new-tokens", type=int, help="longest reply (default: that of the task)")
    parser.add_argument("--threads", type=int, help="number of threads (default: that of torch)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    config = BackboneConfig("local", path=options.backbone, dtype=options.dtype)
    location = locate(config)
    model, tokenizer = load_model(config, location).eval().to(options.device), load_tokenizer(location)
    print(
        f"{options.dtype}, {torch.get_num_threads()} threads, {options.rounds} rounds, batches of {options.batch_size}"
    )
    header = ["task", "prompts", "tokens of a prompt, mean", "of a reply, mean / most", "replies/s over one by one"]
    header += ["replies/s: batches", "one by one", "replies that differ"]
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for task in options.tasks:
            measure(task, model, tokenizer, options, Path(folder))


if __name__ == "__main__":
    main()

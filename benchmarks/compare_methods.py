"""Compare strategies on one task under the matched protocol: same rows, steps, prompt and masking, own learning rate.

For each strategy the learning rate is chosen among an equal number of candidates on a part of the training rows, by
accuracy on held-out training rows. Then the strategy is trained on all training rows for each seed, without looking at
any held-out row, and scored on the report rows. Finished runs are found again, so the script goes on where it stopped.

    python benchmarks/compare_methods.py --backbone FOLDER --data FOLDER --output FOLDER
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from smoa_lightning.__main__ import main as smoa_lightning

ROOT = Path(__file__).parents[1]

# Candidates of equal number, each strategy's around what its source and first trials suggest.
LEARNING_RATES = {
    "smoa_blocks": (5e-3, 1e-2, 2e-2, 4e-2),
    "smoa_energy": (5e-3, 1e-2, 2e-2, 4e-2),
    "hira": (2.5e-3, 5e-3, 1e-2, 2e-2),
    "lora": (2.5e-4, 5e-4, 1e-3, 2e-3),
}


def fit(options: argparse.Namespace, strategy: str, folder: Path, *flags: str) -> dict[str, Any]:
    """Run one ``fit``, unless its record says that it is finished, and return the record.

    A finished run of other settings is refused: old numbers must not stand under new settings.
    """
    record, settings = folder / "record.json", folder.with_name(f"{folder.name}.settings.json")
    asked = [options.task, options.backbone, options.data, options.dtype, options.attention, options.batch_size, *flags]
    if settings.is_file() and json.loads(settings.read_text()) != asked:
        sys.exit(f"{folder} was run with other settings ({settings}): name another --output")
    folder.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(asked))
    if not record.is_file() or json.loads(record.read_text())["status"] != "finished":
        arguments = ["fit", "--config", str(ROOT / "experiments" / f"{options.task}.yaml")]
        arguments += ["--config", str(ROOT / "experiments" / "adapters" / f"{strategy}.yaml")]
        arguments += ["--model.backbone.source", "local", "--model.backbone.path", options.backbone]
        arguments += ["--model.backbone.dtype", options.dtype, "--data.source", "local", "--data.path", options.data]
        arguments += ["--model.backbone.attn_implementation", options.attention]
        arguments += ["--data.batch_size", str(options.batch_size), "--trainer.max_epochs", "1"]
        arguments += ["--trainer.enable_progress_bar", "false", "--run.folder", str(folder)]
        status = smoa_lightning([*arguments, *flags])
        if status:
            sys.exit(status)
    return json.loads(record.read_text())


def search(options: argparse.Namespace, strategy: str) -> tuple[float, list[tuple[float, float]]]:
    """Return the learning rate with the best accuracy on the held-out training rows, and all trials."""
    trials = []
    for rate in LEARNING_RATES[strategy]:
        record = fit(
            options,
            strategy,
            options.output / "search" / f"{strategy}-lr{rate:g}",
            *("--model.optimizer.init_args.lr", str(rate)),
            *("--run.score_base", "false", "--run.score_report", "false"),
            *("--data.limit_train_rows", str(options.search_rows)),
            *("--data.selection_rows", str(options.selection_rows)),
        )
        trials.append((rate, record["metrics"]["selection/acc"]))
    return max(trials, key=lambda trial: trial[1])[0], trials


def final(options: argparse.Namespace, strategy: str, rate: float) -> list[dict[str, Any]]:
    """Train on all rows for each seed and return the records."""
    return [
        fit(
            options,
            strategy,
            options.output / "final" / f"{strategy}-seed{seed}",
            *("--model.optimizer.init_args.lr", str(rate), "--data.selection_rows", "0"),
            *("--seed_everything", str(seed), "--run.score_base", "true" if seed == 0 else "false"),
        )
        for seed in range(options.seeds)
    ]


def spread(values: list[float]) -> str:
    """Return mean and, from two values on, sample standard deviation."""
    deviation = f" ({statistics.stdev(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"


def table(results: dict[str, tuple[float, list[dict[str, Any]]]]) -> str:
    """Return the Markdown table; the error beside an accuracy is that of the items, in brackets that of the seeds."""
    header = ["strategy", "trainable", "lr", "acc ± stderr (sd of seeds)", "acc_norm", "last train loss"]
    header += ["effective rank", "adapter bytes"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    base = next(iter(results.values()))[1][0]["metrics"]
    accuracy = f"{base['base/acc']:.3f} ± {base['base/acc_stderr']:.3f}"
    lines.append(f"| frozen | 0 | | {accuracy} | {base['base/acc_norm']:.3f} | | | 0 |")
    for strategy, (rate, records) in results.items():
        metrics = [record["metrics"] for record in records]
        accuracy, stderr = [m["report/acc"] for m in metrics], metrics[0]["report/acc_stderr"]
        first = metrics[0]
        cells = [strategy, f"{int(first['parameters/trainable']):,}", f"{rate:g}"]
        cells += [f"{spread(accuracy)} ± {stderr:.3f}", spread([m["report/acc_norm"] for m in metrics])]
        cells += [spread([m.get("train/loss", math.nan) for m in metrics])]
        cells += [f"{first['rank/effective_mean']:.1f}"]
        lines.append("| " + " | ".join([*cells, f"{int(first['parameters/adapter_bytes']):,}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Search, train, print the table and write it to the output folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="folder of a Hugging Face causal language model")
    parser.add_argument("--data", required=True, help="folder with train.jsonl and validation.jsonl")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--task", default="piqa")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--attention", default="eager", help="eager is the faster one for short rows on a CPU")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--search-rows", type=int, default=400)
    parser.add_argument("--selection-rows", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--strategies", nargs="+", default=list(LEARNING_RATES), choices=list(LEARNING_RATES))
    options = parser.parse_args()
    results, lines = {}, []
    for strategy in options.strategies:
        rate, trials = search(options, strategy)
        lines.append(f"{strategy}: " + ", ".join(f"lr {r:g} -> {a:.3f}" for r, a in trials))
        results[strategy] = (rate, final(options, strategy, rate))
        (options.output / "table.md").write_text(table(results) + "\n\n" + "\n".join(lines) + "\n")
    print((options.output / "table.md").read_text())


if __name__ == "__main__":
    main()

"""Compares strategies on one task with the same rows, steps, prompt and masking, and with separate learning rates.

The learning rate of each strategy is chosen among the same number of candidates, on a part of the training rows. The
criterion is the likelihood of the right answers on held-out training rows, since accuracy on few rows is too coarse.
Then each seed trains the strategy on all training rows, without any selection, and scores the report rows. Finished
runs are not repeated, so the script continues where it stopped.

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

from scipy.stats import binomtest
from suites import SUITES, Strategy

from smoa_lightning.__main__ import main as smoa_lightning

ROOT = Path(__file__).parents[1]


def fit(options: argparse.Namespace, strategy: Strategy, folder: Path, *flags: str) -> dict[str, Any]:
    """Run one ``fit`` unless it is finished, and return its record.

    A finished run with different settings is refused, so that old numbers are not reported for new settings.
    """
    record, settings = folder / "record.json", folder.with_name(f"{folder.name}.settings.json")
    flags = (*strategy.flags, *flags)
    asked = [options.task, options.backbone, options.data, options.dtype, options.attention, options.batch_size, *flags]
    if settings.is_file() and json.loads(settings.read_text()) != asked:
        sys.exit(f"{folder} was run with different settings ({settings}): choose a different --output")
    folder.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(asked))
    if not record.is_file() or json.loads(record.read_text())["status"] != "finished":
        arguments = ["fit", "--config", str(ROOT / "experiments" / f"{options.task}.yaml")]
        arguments += ["--config", str(ROOT / "experiments" / "adapters" / f"{strategy.overlay}.yaml")]
        arguments += ["--model.backbone.source", "local", "--model.backbone.path", options.backbone]
        arguments += ["--model.backbone.dtype", options.dtype, "--data.source", "local", "--data.path", options.data]
        arguments += ["--model.backbone.attn_implementation", options.attention]
        arguments += ["--data.batch_size", str(options.batch_size), "--trainer.max_epochs", "1"]
        arguments += ["--trainer.enable_progress_bar", "false", "--run.folder", str(folder)]
        status = smoa_lightning([*arguments, *flags])
        if status:
            sys.exit(status)
    return json.loads(record.read_text())


def search(options: argparse.Namespace, name: str, strategy: Strategy) -> tuple[float, list[dict[str, float]]]:
    """Return the learning rate with the lowest nll on the held-out training rows, and all trials."""
    trials = []
    for rate in strategy.rates:
        record = fit(
            options,
            strategy,
            options.output / "search" / f"{name}-lr{rate:g}",
            *("--model.optimizer.init_args.lr", str(rate)),
            *("--run.score_base", "false", "--run.score_report", "false"),
            *("--data.limit_train_rows", str(options.search_rows)),
            *("--data.selection_rows", str(options.selection_rows)),
        )
        metrics = record["metrics"]
        trials.append({"rate": rate, "nll": metrics["selection/nll"], "acc": metrics["selection/acc"]})
    return min(trials, key=lambda trial: trial["nll"])["rate"], trials


def final(options: argparse.Namespace, name: str, strategy: Strategy, rate: float, seed: int) -> dict[str, Any]:
    """Train on the training rows without selection rows, score the report rows, and return the record."""
    limit = [] if options.train_rows is None else ["--data.limit_train_rows", str(options.train_rows)]
    return fit(
        options,
        strategy,
        options.output / "final" / f"{name}-seed{seed}",
        *("--model.optimizer.init_args.lr", str(rate), "--data.selection_rows", "0", *limit),
        *("--seed_everything", str(seed), "--run.score_base", "false"),
    )


def base(options: argparse.Namespace) -> dict[str, Any]:
    """Score the base model on the report rows and return the record."""
    return fit(options, Strategy("frozen", ()), options.output / "final" / "frozen")


def spread(values: list[float]) -> str:
    """Return the mean and, for two or more values, the sample standard deviation."""
    deviation = f" ({statistics.stdev(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"


def mcnemar(options: argparse.Namespace, name: str, other: str) -> float:
    """Return the p-value of the exact McNemar test for two strategies with seed 0."""
    right = []
    for strategy in (name, other):
        lines = (options.output / "final" / f"{strategy}-seed0" / "items.jsonl").read_text().splitlines()
        items = [json.loads(line) for line in lines]
        right.append({item["row"]: item["prediction_acc"] == item["label"] for item in items})
    only = [sum(a[row] and not b[row] for row in a) for a, b in (right, right[::-1])]
    return float(binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0


def table(frozen: dict[str, Any], results: dict[str, tuple[float, list[dict[str, Any]]]]) -> str:
    """Return the Markdown table: accuracies have the standard error over items, and over seeds in brackets."""
    header = ["strategy", "trainable", "lr", "acc ± stderr (sd of seeds)", "acc_norm", "nll", "last train loss"]
    header += ["effective rank", "stable rank", "adapter bytes"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    base = frozen["metrics"]
    accuracy = f"{base['report/acc']:.3f} ± {base['report/acc_stderr']:.3f}"
    losses = f"{base['report/nll']:.3f}"
    lines.append(f"| frozen | 0 | | {accuracy} | {base['report/acc_norm']:.3f} | {losses} | | | | 0 |")
    for name, (rate, records) in results.items():
        metrics = [record["metrics"] for record in records]
        first, stderr = metrics[0], metrics[0]["report/acc_stderr"]
        cells = [name, f"{int(first['parameters/trainable']):,}", f"{rate:g}"]
        cells += [f"{spread([m['report/acc'] for m in metrics])} ± {stderr:.3f}"]
        cells += [spread([m[key] for m in metrics]) for key in ("report/acc_norm", "report/nll")]
        cells += [spread([m.get("train/loss", math.nan) for m in metrics])]
        cells += [f"{first[key]:.1f}" for key in ("rank/effective_mean", "rank/stable_mean")]
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
    parser.add_argument("--attention", default="eager", help="eager is faster for short rows on a CPU")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--train-rows", type=int, help="number of training rows of the final runs (default: all)")
    parser.add_argument("--search-rows", type=int, default=400)
    parser.add_argument("--selection-rows", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--suite", default="rank_32", choices=list(SUITES))
    parser.add_argument("--strategies", nargs="+", help="strategies of the suite (default: all)")
    options = parser.parse_args()
    suite = SUITES[options.suite]
    if unknown := set(options.strategies or ()) - set(suite):
        parser.error(f"no strategy {', '.join(sorted(unknown))} in suite {options.suite}: {', '.join(suite)}")
    chosen = {name: suite[name] for name in options.strategies or suite}
    frozen, results, lines = base(options), {}, []
    rates = {name: search(options, name, strategy) for name, strategy in chosen.items()}
    for name, (_, trials) in rates.items():
        lines.append(f"{name}: " + ", ".join(f"lr {t['rate']:g} -> {t['nll']:.3f} ({t['acc']:.3f})" for t in trials))
    for seed in range(options.seeds):  # seed by seed, so that an interrupted comparison has the same seeds for all
        for name, strategy in chosen.items():
            rate = rates[name][0]
            results.setdefault(name, (rate, []))[1].append(final(options, name, strategy, rate, seed))
            text = table(frozen, results) + "\n\nnll (accuracy) on held-out training rows:\n" + "\n".join(lines)
            (options.output / "table.md").write_text(text + "\n")
    print((options.output / "table.md").read_text())
    first, *others = chosen
    for name in others:
        print(f"{name} against {first}, seed 0: exact McNemar p = {mcnemar(options, name, first):.2f} (uncorrected)")


if __name__ == "__main__":
    main()

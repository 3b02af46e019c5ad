"""Compares this project with EleutherAI's lm-evaluation-harness on the same rows, prompts and model.

Each task uses the harness's own definition (``include:`` of its YAML file) with rows from a local file. Each program
loads the backbone itself, in float32. The script compares the texts of every request, the log-likelihood of every
choice, the predictions and the accuracies.

    pip install lm-eval
    python benchmarks/agree_with_lm_eval.py --backbone FOLDER --data FOLDER --output FOLDER

``--data`` has a folder for each task, with ``validation.jsonl`` in the task's Hub schema. The results of each program
and task are stored in ``--output`` and used again, so the comparison can run in parts. The exit status is 1 if
something disagrees.

The harness's ``acc_norm`` divides by characters. The ``acc_norm`` of this project divides by UTF-8 bytes; the harness
calls this ``acc_bytes``. Both are compared (EleutherAI/lm-evaluation-harness issue 3278).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
import yaml

from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate
from smoa_lightning.backbones.tokenizer import load_tokenizer
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.tasks import get_task
from smoa_lightning.evaluation.choice import ChoiceEvaluator

# task -> file of the harness in lm_eval/tasks
DEFINITIONS = {
    "piqa": "piqa/piqa.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "winogrande": "winogrande/default.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "social_i_qa": "siqa/siqa.yaml",
}
ASKED = ("piqa", "arc_easy", "hellaswag", "boolq", "winogrande")
METRICS = ("acc", "acc_norm", "acc_bytes")
PARTIAL = ("winogrande",)  # here the prompts are the choices, so the harness would divide by the length of the prompts
TOLERANCE = 1e-3
MAX_LENGTH = 2048  # no row may be longer, since the two programs truncate at different places


def write_rows(source: Path, count: int, target: Path) -> None:
    """Write the first rows of a file; BoolQ's answer gets the name that the harness reads."""
    with source.open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in itertools.islice(stream, count)]
    for row in rows:
        if "answer" in row and isinstance(row["answer"], bool):
            row["label"] = int(row["answer"])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# ---- this project


def score_ours(task: str, rows: Path, backbone: str, batch_size: int) -> dict[str, Any]:
    """Return requests, log-likelihoods, predictions and accuracies of this project."""
    location = locate(config := BackboneConfig(source="local", path=backbone))
    data = TaskDataModule(
        task,
        "local",
        path={"validation": str(rows)},
        report_split="validation",
        eval_batch_size=batch_size,
        max_length=MAX_LENGTH,
    )
    data.tokenizer = load_tokenizer(location)
    data.setup("test")
    if data.summary()["report"]["share_truncated"]:
        sys.exit(f"{task}: a row is longer than {MAX_LENGTH} tokens, and the programs truncate at different places")
    model, evaluator, found = load_model(config, location).eval(), ChoiceEvaluator(task), {}
    for batch in data.test_dataloader():
        with torch.inference_mode():
            records = evaluator.score(model, batch)
        for record in records:
            best = {name: record[f"prediction_{name}"] for name in ("acc", "acc_norm")}
            found[record["row"]] = {"log_likelihood": record["log_likelihood"], **best}
    for row, facts in found.items():
        example = data.example("report", row)
        facts |= {"requests": example.pairs, "label": example.label, "num_bytes": example.num_bytes}
    return {"items": [found[row] for row in sorted(found)], "metrics": evaluator.compute()}


# ---- the harness


def define(task: str, rows: Path) -> str:
    """Write the harness's definition of the task with local rows, and return its name."""
    import lm_eval

    origin = Path(lm_eval.__file__).parent / "tasks" / DEFINITIONS[task]
    name = f"local_{task}"
    definition: dict[str, Any] = {
        "include": str(origin),
        "task": name,
        "tag": None,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"validation": str(rows)}, "cache_dir": str(rows.parent / "cache")},
        "training_split": None,
        "test_split": None,
        "validation_split": "validation",
    }
    metrics = METRICS[:1] if task in PARTIAL else METRICS
    definition["metric_list"] = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in metrics]
    (rows.parent / f"{name}.yaml").write_text(yaml.safe_dump(definition))
    return name


def score_theirs(task: str, rows: Path, backbone: str, batch_size: int) -> dict[str, Any]:
    """Return requests, log-likelihoods, predictions and accuracies of the harness."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    name = define(task, rows)
    outcome = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": backbone, "dtype": "float32"},
        tasks=[name],
        device="cpu",
        batch_size=batch_size,
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(rows.parent), include_defaults=False),
    )
    items = []
    for sample in sorted(outcome["samples"][name], key=lambda sample: sample["doc_id"]):
        requests = [list(request) for request in sample["arguments"]]
        item = {"requests": requests, "log_likelihood": [float(answer[0][0]) for answer in sample["resps"]]}
        items.append(item | {metric: sample[metric] for metric in sample["metrics"]})
    results = outcome["results"][name]
    metrics = {metric: results[f"{metric},none"] for metric in METRICS if f"{metric},none" in results}
    return {"items": items, "metrics": metrics}


# ---- the comparison


def flipped(scores: list[float], chosen: int, tolerance: float) -> bool | None:
    """Return whether a different choice is best by these scores; None if the difference is within the tolerance."""
    if scores[chosen] == max(scores):
        return False
    return True if max(scores) - scores[chosen] > tolerance else None


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return how well the two programs agree, for each item and in total."""
    pairs = list(zip(ours["items"], theirs["items"], strict=True))
    different_text = sum(one["requests"] != other["requests"] for one, other in pairs)
    largest, flips, ties = 0.0, 0, 0
    for one, other in pairs:
        values, sizes = other["log_likelihood"], one["num_bytes"]
        largest = max(largest, *(abs(a - b) for a, b in zip(one["log_likelihood"], values, strict=True)))
        per_byte = [value / size for value, size in zip(values, sizes, strict=True)]
        turned = [flipped(values, one["acc"], TOLERANCE), flipped(per_byte, one["acc_norm"], TOLERANCE / min(sizes))]
        flips += turned.count(True)
        ties += turned.count(None)
    counts = {f"ours_{name}": round(ours["metrics"][name] * len(pairs)) for name in ("acc", "acc_norm")}
    counts |= {f"theirs_{name}": round(value * len(pairs)) for name, value in theirs["metrics"].items()}
    distance = abs(counts["ours_acc"] - counts["theirs_acc"])
    distance += abs(counts["ours_acc_norm"] - counts.get("theirs_acc_bytes", counts["ours_acc_norm"]))
    facts = {"items": len(pairs), "choices": sum(len(one["num_bytes"]) for one, _ in pairs), "right": counts}
    facts |= {"different_text": different_text, "largest_difference": largest, "flips": flips, "ties": ties}
    return facts | {"agrees": not different_text and largest <= TOLERANCE and not flips and distance <= ties}


def by_characters(ours: dict[str, Any], theirs: dict[str, Any]) -> int:
    """Count the items with a normalised prediction that is right by bytes and wrong by characters, or vice versa."""
    pairs = zip(ours["items"], theirs["items"], strict=True)
    return sum(int(one["acc_norm"] == one["label"]) != other.get("acc_norm", other["acc"]) for one, other in pairs)


def side(options: argparse.Namespace, task: str, name: str) -> dict[str, Any]:
    """Score a task with one program, ``ours`` or ``theirs``, or read the result of an earlier call.

    A result with different settings is refused, so that old numbers are not reported for new settings.
    """
    folder = options.output.resolve() / task
    rows, file = folder / "rows.jsonl", folder / f"{name}.json"
    write_rows(Path(options.data) / task / "validation.jsonl", options.rows, rows)
    settings = {"backbone": options.backbone, "rows": hashlib.sha256(rows.read_bytes()).hexdigest()}
    settings |= {package: version(package) for package in ("lm_eval", "torch", "transformers")}
    settings["task_version"] = str(get_task(task).version)
    if file.is_file():
        result = json.loads(file.read_text())
        if result["settings"] != settings:
            sys.exit(f"{file} was made with different settings ({result['settings']}): choose a different --output")
        return result
    start = time.perf_counter()
    score = {"ours": score_ours, "theirs": score_theirs}[name]
    result = {"settings": settings, **score(task, rows, options.backbone, options.batch_size)}
    result["seconds"] = time.perf_counter() - start
    file.write_text(json.dumps(result))
    # as in a later call: JSON turns the requests into lists
    return json.loads(file.read_text())


def run(options: argparse.Namespace, task: str) -> dict[str, Any]:
    """Score a task with both programs and compare."""
    ours, theirs = side(options, task, "ours"), side(options, task, "theirs")
    comparison = compare(ours, theirs) | {"by_characters": by_characters(ours, theirs)}
    return {"theirs": theirs, "comparison": comparison}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the Markdown table with values of this project / the harness."""
    header = ["task", "rows", "choices", "texts that differ", "largest difference of a log-likelihood"]
    header += ["predictions that differ (ties)", "acc", "acc_norm / acc_bytes", "acc_norm of the harness", "agrees"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for task, result in results.items():
        facts = result["comparison"]
        share = {name: f"{count / facts['items']:.4f}" for name, count in facts["right"].items()}
        cells = [task, str(facts["items"]), str(facts["choices"]), str(facts["different_text"])]
        cells += [f"{facts['largest_difference']:.1e}", f"{facts['flips']} ({facts['ties']})"]
        cells += [f"{share['ours_acc']} / {share['theirs_acc']}"]
        cells += [f"{share['ours_acc_norm']} / {share.get('theirs_acc_bytes', '')}"]
        cells += [f"{share['theirs_acc_norm']} ({facts['by_characters']} items)" if "theirs_acc_norm" in share else ""]
        lines.append("| " + " | ".join([*cells, "yes" if facts["agrees"] else "NO"]) + " |")
    return "\n".join(lines)


def write_golden(file: Path, backbone: str, results: dict[str, dict[str, Any]]) -> None:
    """Add the harness's numbers to a file, under the backbone's name, for a test that runs without the harness."""
    tasks = {}
    for task, result in results.items():
        items = result["theirs"]["items"]
        values = [[round(value, 5) for value in item["log_likelihood"]] for item in items]
        requests = [item["requests"] for item in items]
        tasks[task] = {"requests": requests, "log_likelihood": values, "metrics": result["theirs"]["metrics"]}
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    content[Path(backbone).name] = {"lm_eval": version("lm_eval"), "tasks": tasks}
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Compare all tasks, print the table and write it to the output folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="folder of a Hugging Face causal language model")
    parser.add_argument("--data", required=True, help="folder with TASK/validation.jsonl")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--tasks", nargs="+", default=ASKED, choices=list(DEFINITIONS))
    parser.add_argument("--rows", type=int, default=200, help="number of rows from the start of each file")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--golden", type=Path, help="write the harness's numbers to this file, for a regression test")
    options = parser.parse_args()
    results = {}
    for task in options.tasks:
        results[task] = run(options, task)
        (options.output / "table.md").write_text(table(results) + "\n")
    if options.golden:
        write_golden(options.golden, options.backbone, results)
    print(table(results))
    return 0 if all(result["comparison"]["agrees"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

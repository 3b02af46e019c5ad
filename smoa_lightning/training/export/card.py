"""The fidelity report as a table, and the model card of an export."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from smoa_lightning.records.metric_table import COUNT

Facts = dict[str, Any]
MERGED = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```"""
LORA = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "path/to/this/folder")
```"""
ADAPTER = """```python
from smoa_lightning import load_adapter  # the import registers the methods that peft does not have

model, tokenizer = load_adapter("path/to/this/folder")
```"""
CAUSAL, IMAGES = "AutoModelForCausalLM", "AutoModelForImageClassification"
PIPELINES = {CAUSAL: "text-generation", IMAGES: "image-classification"}
USES = {"merged": MERGED, "lora": LORA, "adapter": ADAPTER}
LIBRARIES = {"merged": "transformers", "lora": "peft", "adapter": "peft"}
KINDS = {"merged": "finetune", "lora": "adapter", "adapter": "adapter"}
SHOWN = 3  # names in a line


def table(facts: Facts) -> str:
    """Return the fidelity report as Markdown: metrics before and after, and a line for each other fact."""
    fidelity = facts["fidelity"]
    rows = [["metric", "model of the run", "export", "difference"], [":--", "--:", "--:", "--:"]]
    for name in _metric_names(fidelity):
        before, after = fidelity["before"][name], fidelity["after"][name]
        rows.append([name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}"])
    lines = []
    if fidelity["rows"]:
        lines += [f"On {fidelity['rows']} report rows:", ""]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines.append("")
    return "\n".join([*lines, *(f"* {line}" for line in _lines(facts))])


def _metric_names(fidelity: Facts) -> list[str]:
    """Return the metrics to show: the primary one first, without standard errors and those of single tasks."""
    shared = [name for name in fidelity["before"] if name in fidelity["after"]]
    names = [n for n in shared if n != COUNT and "/" not in n and not n.endswith("_stderr")]
    return sorted(names, key=lambda name: name != fidelity["primary"])


def _lines(facts: Facts) -> Iterator[str]:
    fidelity = facts["fidelity"]
    same = f"; same next token at {fidelity['same_token']:.1%} of {fidelity['positions']} positions"
    if facts["auto_class"] != CAUSAL:
        same = f"; same class for {fidelity['same_token']:.1%} of {fidelity['positions']} rows"
    if facts.get("head") == "regression":
        same = ""
    largest = f"(largest logit {fidelity['largest_logit']:.3g})"
    yield f"largest logit difference: {fidelity['largest_difference']:.3g} {largest}{same}"
    yield f"logits compared on {fidelity['place']}"
    if "rank" in facts:
        yield f"rank {facts['rank']}: {facts['rank_reason']}"
        yield (
            f"relative error of the update: {facts['update_error']:.2e} over {facts['layers']} layers, worst layer "
            f"{facts['worst_layer']}: {facts['worst_layer_error']:.2e}"
        )
        yield "smallest error by rank: " + ", ".join(f"{r}: {e:.1%}" for r, e in facts["update_error_by_rank"].items())
    if facts.get("left_out"):
        names = facts["left_out"]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        yield f"not in the LoRA: {', '.join(names[:SHOWN])}{more}; --format merged has them"
    if "dtype" in facts:
        rounded = facts["format"] == "merged" and facts["dtype"] != "float32"
        yield f"weights in {facts['dtype']}" + (
            "; --dtype float32 writes the update without rounding" if rounded else ""
        )
    if facts.get("bytes", 0) > facts.get("merged_bytes", math.inf):
        yield (
            f"the LoRA has {facts['bytes'] / 1e6:,.1f} MB, more than the merged model with about "
            f"{facts['merged_bytes'] / 1e6:,.1f} MB: --format merged is smaller, and so is a smaller --rank"
        )
    if facts["dequantized"]:
        yield f"the backbone of the run is stored in {facts['quantized']}: it was dequantised first"


def _use(facts: Facts, base: str) -> str:
    """Return how the export is loaded, as code."""
    code = USES[facts["format"]].format(base=base).replace(CAUSAL, facts["auto_class"])
    if facts["auto_class"] == IMAGES:
        code = code.replace("AutoTokenizer", "AutoImageProcessor").replace("tokenizer", "image_processor")
    return code


def card(facts: Facts) -> str:
    """Return the model card: base model, method, run, metrics and fidelity."""
    base = facts["backbone"]
    header = [f"library_name: {LIBRARIES[facts['format']]}"]
    if base["source"] == "hub":  # the hub refuses cards with a base model that is a path
        header += [f"base_model: {base['name']}", f"base_model_relation: {KINDS[facts['format']]}"]
    header += [
        f"pipeline_tag: {PIPELINES.get(facts['auto_class'], 'text-classification')}",
        f"tags: [smoa-lightning, {LIBRARIES[facts['format']]}]",
    ]
    metrics = {name: value for name, value in facts["run_metrics"].items() if not name.endswith(("_stderr", COUNT))}
    commit = f", commit `{base['commit']}`" if base["commit"] else ""
    about = [
        f"* Base model: `{base['name']}` (source: {base['source']}{commit})",
        f"* Method: {facts['method']}",
        f"* Run: {facts['run'] or 'not known'}, step {facts['step']}",
        f"* Data: task `{facts['task']}`, source: {facts['data_source']}",
    ]
    scores = [f"| {name} | {value:.4f} |" for name, value in metrics.items()]
    measured = ["## Metrics of the run", "", "| metric | value |", "| :-- | --: |", *scores, ""] if scores else []
    front = "\n".join(header)
    loaded = base["name"] if base["source"] == "hub" else "path/to/the/base/model"
    return f"""---
{front}
---

# {facts["task"]} on {base["name"].rpartition("/")[2]}: {facts["method"]}

Exported by smoa_lightning {facts["version"]}, format `{facts["format"]}`.

{chr(10).join(about)}

{_use(facts, loaded)}

{chr(10).join(measured)}
## Fidelity of the export

{table(facts)}
"""

"""Export a run: write the folder, load it as its users will, and compare it with the model of the run."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from smoa_lightning.adapters.inspect import largest_rank
from smoa_lightning.backbones.backbone import Location, complete_model
from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import ADAPTER_FACTS, RECORD
from smoa_lightning.training.adapter_folder import CARD, load_adapter, read_adapter_facts, trains_head_only
from smoa_lightning.training.export.card import card, table
from smoa_lightning.training.export.lora import (
    choose_rank,
    errors_by_rank,
    find_updates,
    load_lora,
    write_lora,
)
from smoa_lightning.training.export.merge import cast_once, merged_model, write_model
from smoa_lightning.training.export.probe import check_fidelity, compare, make_probe
from smoa_lightning.training.export.push import check_push, push
from smoa_lightning.training.export.source import Source, check_updates_weights, open_source, stored_format
from smoa_lightning.version import __version__

logger = logging.getLogger(__name__)
REPORT = "export.json"
Facts = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What to export.

    Attributes:
        format: ``merged``, ``adapter`` or ``lora``.
        rank: Rank of the LoRA; None chooses it.
        dtype: Number format of the weights; None: that of the backbone's files, or float32 for a LoRA.
        backbone: Folder of the backbone, if it has moved since training.
        fidelity_rows: Number of report rows for the metric; 0 measures no metric.
        push: Repository of the hub to upload to.
    """

    format: str = "merged"
    rank: int | None = None
    dtype: str | None = None
    backbone: str | None = None
    fidelity_rows: int = 200
    push: str | None = None


def export(run: str | Path, output: Path, options: Options) -> str:
    """Write the folder with its card and ``export.json``, and return the fidelity report.

    The folder is written under a temporary name and compared with the run before it gets its name.

    Args:
        run: A run folder (its best adapter is used) or an adapter folder.
        output: The new folder; it may exist if it is empty.
        options: What to export.

    Raises:
        UserError: The run, its method or the folder does not allow this export.
    """
    if options.push is not None:
        check_push(options.push)
    _check_output(output)
    source = open_source(run, options.backbone)
    _check_format(source, options)
    probe = make_probe(source, options.fidelity_rows)
    model = source.model_of_the_run()
    if options.format != "adapter":
        check_updates_weights(source, model, options.format)
    quantised, bound = stored_format(model), _bound(source, model)
    logger.info("measuring the model of the run")
    logits, before = probe.logits(model), probe.metrics(model)
    del model
    gc.collect()  # its memory is free before the next model is loaded
    with replacing(output) as temporary:
        temporary.mkdir()
        logger.info("writing the %s export", options.format)
        facts = _description(source, options, quantised) | WRITERS[options.format](source, options, temporary, bound)
        logger.info("measuring the export")
        fidelity = compare(probe, _load(source, options.format, temporary), logits, before)
        if options.format != "lora":  # the error of a LoRA is that of its rank, and the report states it
            check_fidelity(fidelity, exact=_is_exact(source, facts))
        facts["fidelity"] = dataclasses.asdict(fidelity)
        (temporary / REPORT).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        (temporary / CARD).write_text(card(facts), encoding="utf-8")
    lines = [table(facts), f"written to {output}"]
    if options.push is not None:
        lines.append(f"uploaded to {push(output, options.push)}")
    return "\n".join(lines)


def _check_output(output: Path) -> None:
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"export: {output} exists and is not an empty folder: name a new folder with --output")
    inside = output.resolve()
    for folder in (inside, *inside.parents):
        for name, what in ((RECORD, "the folder of a run"), (ADAPTER_FACTS, "an adapter folder")):
            if (folder / name).is_file():
                raise UserError(
                    f"export: {output} is inside {what}, {folder}: name a folder outside of it with --output"
                )


def _check_format(source: Source, options: Options) -> None:
    """Refuse a format that the run cannot have, before a weight is loaded."""
    if options.format == "adapter" and source.adapter is None:
        what, form = "full fine-tuning", "--format merged or --format lora"
        if trains_head_only(source.facts):
            what, form = "a run that trains a new head alone", "--format merged"
        raise UserError(f"export: {what} has no adapter: use {form}")
    if options.format == "lora" and source.location.head.is_new:
        raise UserError("export: a LoRA does not hold the new head of the model: use --format merged or adapter")
    if options.format != "adapter" and source.location.head.texts:
        raise UserError(
            "export: transformers has no class for a head that starts from texts (model.head_init), and would compute "
            "other logits: use --format adapter"
        )
    if options.format != "adapter":
        check_updates_weights(source, None, options.format)


def _is_exact(source: Source, facts: Facts) -> bool:
    """Return whether the run and its export are in float32, so that only the order of sums differs."""
    formats = {source.backbone.dtype, facts.get("dtype", source.backbone.dtype)}
    return formats == {"float32"} and facts["quantized"] is None


def _bound(source: Source, model: Any) -> int | None:
    """Return the largest rank that the method allows in a layer; None after full fine-tuning."""
    if source.adapter is None or source.adapter.is_prompt_learning:
        return None
    return largest_rank(model)


def _description(source: Source, options: Options, quantised: str | None) -> Facts:
    """Return the facts of the export, before anything is written."""
    location = source.location
    return {
        "version": __version__,
        "format": options.format,
        "method": source.method,
        "run": source.record.get("name"),
        "task": source.facts.get("task"),
        "data_source": source.facts.get("data_source"),
        "step": source.facts.get("step"),
        "auto_class": location.head.auto_name,
        "head": location.head.kind,
        "backbone": {"source": location.source, "name": source.facts["location"]["name"], "commit": location.commit},
        "quantized": quantised,
        "dequantized": quantised is not None and options.format != "adapter",
        "run_metrics": source.run_metrics,
    }


# ----------------------------------------------------------------------------------------------------------- formats


def _write_merged(source: Source, options: Options, folder: Path, bound: int | None) -> Facts:
    dtype = source.own_dtype if options.dtype is None else getattr(torch, options.dtype)
    model = cast_once(merged_model(source), dtype)
    write_model(model, source, folder)
    tied = bool(getattr(model.config, "tie_word_embeddings", False))  # the config of CLIP has no such entry
    return {"dtype": str(dtype).removeprefix("torch."), "tied_output": tied}


def _write_adapter(source: Source, options: Options, folder: Path, bound: int | None) -> Facts:
    shutil.copytree(source.folder, folder, dirs_exist_ok=True)
    facts = read_adapter_facts(folder)  # compares the copy with the checksums
    return {"files": len(facts.get("sha256", {}))}


def _write_lora(source: Source, options: Options, folder: Path, bound: int | None) -> Facts:
    dtype = torch.float32 if options.dtype is None else getattr(torch, options.dtype)
    merged, backbone = merged_model(source, "lora").to("cpu"), source.plain_backbone().to("cpu")  # type: ignore[arg-type]
    updates = find_updates(backbone, merged)
    if not updates.layers:
        raise UserError(f"export: {source.method} changes no linear layer, so it has no lora form: use --format merged")
    rank, reason = choose_rank(updates, bound, options.rank)
    error = write_lora(backbone, merged, updates, rank, dtype, folder)
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "merged_bytes": sum(parameter.numel() for parameter in merged.parameters()) * source.own_dtype.itemsize,
        "rank": rank,
        "rank_reason": reason,
        "update_error": error.overall,
        "worst_layer": error.worst_layer,
        "worst_layer_error": error.worst,
        "update_error_by_rank": errors_by_rank(updates),
        "layers": len(updates.layers),
        "left_out": updates.left_out,
    }


WRITERS: dict[str, Callable[[Source, Options, Path, int | None], Facts]] = {
    "merged": _write_merged,
    "adapter": _write_adapter,
    "lora": _write_lora,
}


def _load(source: Source, format: str, folder: Path) -> Any:
    """Load an exported folder as other programs do."""
    if format == "merged":
        return complete_model(Location("local", str(folder), head=source.location.head)).eval()
    if format == "lora":
        return load_lora(source.plain_backbone(), folder)
    return load_adapter(folder, source.moved)[0]

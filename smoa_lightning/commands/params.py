"""``params``: adapted layers, trainable parameters, rank bounds, memory and disk, without data and weights."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from smoa_lightning.commands.params_flags import ParamsFlags, check_flags, row_lengths, split_flags
from smoa_lightning.common.allowed_classes import allowing, split_packages
from smoa_lightning.common.console import ON_STDERR
from smoa_lightning.common.fast_imports import import_command
from smoa_lightning.configuration import expand_bases, help_or_check, with_full_keys
from smoa_lightning.records.tables import text_table

if TYPE_CHECKING:
    from smoa_lightning.adapters.inspect import AdaptedLayer
    from smoa_lightning.training.memory.report import Report, TeacherSize

logger = logging.getLogger(__name__)
TITLES = ("layers", "kind", "out", "in", "trainable", "rank bound", "count")
KEYS = ("layers", "kind", "out_features", "in_features", "trainable_parameters", "rank_bound", "count")
Kind = tuple[str, str, int, int, int, int, int]


def kinds_of_layers(layers: list[AdaptedLayer]) -> list[Kind]:
    """Return a kind of layer each: name with * as index, method, shape, parameters and rank bound of one, count."""

    def kind(layer: AdaptedLayer) -> tuple[str, str, int, int, int, int]:
        name = ".".join("*" if part.isdigit() else part for part in layer.name.split("."))
        return name, layer.kind, layer.out_features, layer.in_features, layer.trainable_parameters, layer.rank_bound

    return [(*key, len(list(group))) for key, group in groupby(sorted(layers, key=kind), key=kind)]


def layer_table(layers: list[AdaptedLayer]) -> str:
    """Return one line a kind of layer."""
    rows: list[tuple[str, ...]] = []
    for key in kinds_of_layers(layers):
        shown = [f"{value:,}" if isinstance(value, int) else value for value in key]
        shown[5] = shown[5] if key[5] else "none"  # an adapter slot does not update a weight
        rows.append(tuple(shown))
    return text_table(TITLES, rows, words=2)


def main(args: list[str]) -> None:
    """Print the table for the configuration on the command line.

    Raises:
        UserError: Bad input.
    """
    packages, args = split_packages(args)
    flags, args = split_flags(args)
    args = with_full_keys("params", args)
    if help_or_check("params", args):
        return
    FineTuneCLI = import_command("smoa_lightning.training.cli").FineTuneCLI
    from smoa_lightning.common.quiet import quiet_libraries
    from smoa_lightning.training.memory.report import report
    from smoa_lightning.training.run_notes import announce_sources

    quiet_libraries()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # hides messages about devices: no run follows
    with allowing(packages):
        cli = FineTuneCLI(expand_bases(args), run=False)
    announce_sources(cli.model)
    head = cli.model.objective.head
    check_flags(flags, head.is_new, head.reads_images)
    lengths = row_lengths(flags, cli.config["data.max_length"], cli.model.limits.context)
    if flags.memory:
        logger.info("estimating memory (--no_memory leaves it out)", extra=ON_STDERR)
    result = report(cli.model, cli.datamodule, cli.trainer, lengths, flags.memory)
    if flags.json:
        print(json.dumps(facts(result), indent=2))
    else:
        print(text(result, flags))


def text(result: Report, flags: ParamsFlags) -> str:
    """Return what the command prints."""
    from smoa_lightning.training.memory.tables import disk_text, memory_text

    lines = [f"backbone: {result.source} ({result.name}), {result.total:,} parameters", f"strategy: {result.strategy}"]
    if result.budget is not None:
        lines.append(result.budget.line())
    if result.layers is not None:
        lines.append(layer_table(result.layers))
    share = f"{result.trainable / result.total:.3%} of the backbone"
    lines.append(f"trainable parameters: {result.trainable:,} ({share})")
    if result.head:
        lines.append(f"parameters of the new head, trained with the strategy: {result.head:,}")
    if result.teacher is not None:
        lines.append(teacher_text(result.teacher))
    lines.append(f"adapter file: about {result.adapter_bytes:,} bytes")
    if result.disk is not None and (result.trainable or result.head):
        lines.append(disk_text(result.disk))
    if result.memory is not None:
        lines += ["", memory_text(result.memory, result.optimizer)]
        if flags.targets is None and result.memory.shape.targets > 1:
            lines.append("every token counts as a target; with data.loss_on: response there are fewer (--targets N)")
    return "\n".join(lines)


def teacher_text(teacher: TeacherSize) -> str:
    """Return one line about a teacher, whose weights are a part of the estimated memory if there is no cache."""
    from smoa_lightning.training.memory.tables import size_text

    size = teacher.bytes
    memory = f"{size_text(size)} of weights" if size else "its weights are those of the backbone, in memory once"
    when = ", in memory only while its cache is filled, which is not estimated" if teacher.cached else ""
    return f"teacher: {teacher.name}, {teacher.parameters:,} parameters without its adapter, {memory}{when}"


def facts(result: Report) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    from smoa_lightning.training.memory.tables import disk_facts, memory_facts

    layers = None if result.layers is None else kinds_of_layers(result.layers)
    budget = result.budget
    return {
        "backbone": {"source": result.source, "name": result.name, "dtype": result.dtype, "parameters": result.total},
        "strategy": result.strategy,
        "budget": None if budget is None else {"target": budget.target, "changes": budget.changes},
        "layers": None if layers is None else [dict(zip(KEYS, kind, strict=True)) for kind in layers],
        "trainable_parameters": result.trainable,
        "head_parameters": result.head,
        "teacher": None if result.teacher is None else asdict(result.teacher),
        "adapter_bytes": result.adapter_bytes,
        "memory": None if result.memory is None else memory_facts(result.memory, result.optimizer),
        "disk": None if result.disk is None else disk_facts(result.disk),
    }

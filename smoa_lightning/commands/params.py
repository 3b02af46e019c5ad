"""``params``: adapted layers, trainable parameters and rank bounds of a configuration, without data and weights."""

from __future__ import annotations

import logging
from itertools import groupby
from typing import TYPE_CHECKING

from smoa_lightning.common.allowed_classes import allowing, split_packages
from smoa_lightning.common.fast_imports import import_command
from smoa_lightning.configuration import expand_bases, help_or_check, with_full_keys
from smoa_lightning.records.tables import text_table

if TYPE_CHECKING:
    from smoa_lightning.adapters.inspect import AdaptedLayer


def layer_table(layers: list[AdaptedLayer]) -> str:
    """Return one line a kind of layer: name with * as index, shape, parameters and rank bound of one layer, count."""

    def kind(layer: AdaptedLayer) -> tuple[str, str, int, int, int, int]:
        name = ".".join("*" if part.isdigit() else part for part in layer.name.split("."))
        return name, layer.kind, layer.out_features, layer.in_features, layer.trainable_parameters, layer.rank_bound

    titles = ("layers", "kind", "out", "in", "trainable", "rank bound", "count")
    rows: list[tuple[str, ...]] = []
    for key, group in groupby(sorted(layers, key=kind), key=kind):
        shown = [f"{value:,}" if isinstance(value, int) else value for value in key]
        shown[-1] = shown[-1] if key[-1] else "none"  # an adapter slot does not update a weight
        rows.append((*shown, f"{len(list(group)):,}"))
    return text_table(titles, rows, words=2)


def main(args: list[str]) -> None:
    """Print the table for the configuration on the command line.

    Raises:
        UserError: Bad input.
    """
    packages, args = split_packages(args)
    args = with_full_keys("params", args)
    if help_or_check("params", args):
        return
    FineTuneCLI = import_command("smoa_lightning.training.cli").FineTuneCLI
    from smoa_lightning.adapters import attach
    from smoa_lightning.adapters.inspect import adapted_layers, adapter_bytes
    from smoa_lightning.adapters.method_names import strategy_name
    from smoa_lightning.backbones.backbone import load_skeleton
    from smoa_lightning.common.quiet import quiet_libraries
    from smoa_lightning.training.run_notes import announce_sources

    quiet_libraries()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # hides messages about devices: no run follows
    with allowing(packages):
        module = FineTuneCLI(expand_bases(args), run=False).model
    announce_sources(module)
    fit = module.resolve_budget()
    network = load_skeleton(module.backbone_config, module.location)
    total = sum(p.numel() for p in network.parameters())
    print(f"backbone: {module.location.source} ({module.location.name}), {total:,} parameters")
    print(f"strategy: {strategy_name(module.adapter_config, module.frozen)}")
    if fit is not None:
        print(fit.line())
    if module.adapter_config is None:
        trainable = 0 if module.frozen else total
        size = sum(p.numel() * p.element_size() for p in network.parameters()) if trainable else 0
    else:
        adapted = attach(network, module.adapter_config, module.adapter_seed)
        print(layer_table(adapted_layers(adapted)))
        trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        size = adapter_bytes(adapted)
    print(f"trainable parameters: {trainable:,} ({trainable / total:.3%} of the backbone)")
    print(f"adapter file: about {size:,} bytes")

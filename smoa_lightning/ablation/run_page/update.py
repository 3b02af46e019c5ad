"""The part of a run's page on the update: its ranks during training, by layer, and its spectra."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.run_page.events import Curve
from smoa_lightning.ablation.run_page.figures import finite, layer_figure, ranks_over_time, spectrum_figure
from smoa_lightning.records.items import is_number
from smoa_lightning.records.page.document import Block, Fold, Heading, Paragraph, Picture, Row, Table, columns

SPECTRA = "rank.json"  # that the command rank writes


def update_blocks(folder: Path, curves: Mapping[str, Curve]) -> Iterator[Block]:
    """Yield the section on the update; nothing if no rank was measured."""
    layers = _measured(folder)
    effective = {
        tag.removeprefix("rank/effective/"): curve.last
        for tag, curve in curves.items()
        if tag.startswith("rank/effective/")
    }
    if layers:
        effective = {layer["name"]: layer["rank"]["effective"] for layer in layers}
    if not effective:
        return
    yield Heading("Update")
    over_time, bound = finite(curves.get("rank/effective_mean")), finite(curves.get("rank/bound_mean"))
    pictures: list[Picture] = [spectrum_figure(_spectra(layers))] if layers else []
    pictures.append(layer_figure(effective, {layer["name"]: layer["bound"] for layer in layers}, bound))
    if over_time is not None and len(over_time) > 1:
        pictures.append(ranks_over_time(over_time, finite(curves.get("rank/stable_mean"))))
    yield Row(tuple(pictures))
    setting = "--layers of the command rank" if layers else "rank_monitor.max_layers"
    yield Paragraph(
        f"{len(effective)} layers are measured. They lie at even distances in the list of all layers that the strategy "
        f"changes, in the order of the model, with its first and last layer. {setting} sets their number."
    )
    if not layers:
        yield Paragraph(f"The command `rank {folder}` measures the singular values, and the next report shows them.")
    yield Fold("Ranks of the measured layers", (_table(effective, curves, layers),))


def _measured(folder: Path) -> list[dict[str, Any]]:
    """Return the layers of the run from the file of the command ``rank``; empty without an intact file."""
    try:
        runs = json.loads((folder / SPECTRA).read_text(encoding="utf-8"))
        layers: list[dict[str, Any]] = [layer for layer in runs[0]["layers"] if layer["values"]]
        for layer in layers:
            numbers = [layer["trainable"], layer["bound"], *layer["shape"], *layer["values"]]
            numbers += [layer["rank"][name] for name in ("effective", "stable", "numerical")]
            if not (isinstance(layer["name"], str) and all(map(is_number, numbers))):
                return []
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return []
    return layers


def _spectra(layers: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return kind of layer -> the median of its singular values, divided by the largest."""
    groups: dict[str, list[list[float]]] = {}
    for layer in layers:
        values = [value for value in layer["values"][: layer["rank"]["numerical"]] if value > 0]
        if values:
            groups.setdefault(layer["name"].rpartition(".")[2], []).append([each / values[0] for each in values])
    return {
        kind: [statistics.median(values[place] for values in group) for place in range(min(map(len, group)))]
        for kind, group in groups.items()
    }


def _table(effective: Mapping[str, float], curves: Mapping[str, Curve], layers: list[dict[str, Any]]) -> Table:
    if layers:
        titles = ["layer", "shape", "trainable", "effective", "stable", "numerical", "bound"]
        rows = [
            (
                layer["name"],
                " x ".join(f"{side:,}" for side in layer["shape"]),
                f"{layer['trainable']:,}",
                f"{layer['rank']['effective']:.1f}",
                f"{layer['rank']['stable']:.1f}",
                f"{layer['rank']['numerical']:,}",
                f"{layer['bound']:,}",
            )
            for layer in layers
        ]
        return Table("layer_ranks", "Ranks of the best adapter, layer by layer.", columns(titles, 2), tuple(rows))
    stable = {name: curves.get(f"rank/stable/{name}") for name in effective}
    plain = [
        (name, f"{value:.1f}", f"{found.last:.1f}" if (found := stable[name]) else "")
        for name, value in effective.items()
    ]
    caption = "Ranks of the update at its last measurement, layer by layer."
    return Table("layer_ranks", caption, columns(["layer", "effective", "stable"]), tuple(plain))

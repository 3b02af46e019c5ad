"""The table and the figure of update ranks: means of all runs, and layers of the first run."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path

from smoa_lightning.common.atomic_files import replacing, write_json
from smoa_lightning.records.rank_figure import Panel, draw
from smoa_lightning.training.update_rank import RunRank

FILES = ("rank.md", "rank.json", "rank.png", "rank.svg")


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown(runs: list[RunRank]) -> str:
    """Return the means of all runs and the layers of the first run as Markdown."""
    main = runs[0]
    means = list(main.means())
    rows = [
        [
            run.label,
            f"{run.trainable:,}",
            *(f"{run.means()[name]:.1f}" for name in means),
            f"{len(run.layers)} of {run.adapted}",
        ]
        for run in runs
    ]
    layers = [
        [
            layer.name,
            f"{layer.shape[0]:,} x {layer.shape[1]:,}",
            f"{layer.trainable:,}",
            f"{layer.lora_rank:.3g}",
            f"{layer.rank.effective:.1f}",
            f"{layer.rank.stable:.1f}",
            f"{layer.rank.numerical:,}",
            f"{layer.bound:,}",
        ]
        for layer in main.layers
    ]
    more = " (--layers N measures more)" if any(len(run.layers) < run.adapted for run in runs) else ""
    header = ["layer", "shape", "trainable", "LoRA rank of that size", "effective", "stable", "numerical", "bound"]
    return f"""# Rank of the update: {main.label}

Means over the measured layers{more}. effective: exp of the entropy of σ / Σσ; stable: Σσ² / σ_1²; numerical: σ above
float32 rounding; bound: what the method allows. The update is W' - W with W the weight of the backbone itself.

{_table(["run", "trainable", *means, "layers measured"], rows)}

{main.label}, layer by layer:

{_table(header, layers)}
"""


def panels(runs: list[RunRank]) -> list[Panel]:
    """Return a panel for each kind of layer of the first run, with the median curve of each run.

    A single run is compared with the rank of a LoRA with the same number of parameters.
    """
    by_kind: dict[str, Panel] = {}
    for number, run in enumerate(runs):
        label = f"{run.label}, {run.trainable:,} parameters"
        label = label if all(label not in panel.curves for panel in by_kind.values()) else f"{label} ({number + 1})"
        curves: dict[str, list[list[float]]] = {}
        for layer in run.layers:
            if number == 0 and layer.kind not in by_kind:
                title = f"{layer.kind.rpartition('.')[2]} ({layer.shape[0]:,} x {layer.shape[1]:,})"
                by_kind[layer.kind] = Panel(title, lora_rank=layer.lora_rank if len(runs) == 1 else None)
            if layer.curve:
                curves.setdefault(layer.kind, []).append(layer.curve)
        for kind, group in curves.items():
            if kind in by_kind:
                shortest = min(map(len, group))
                by_kind[kind].curves[label] = [statistics.median(c[i] for c in group) for i in range(shortest)]
    return list(by_kind.values())


def write_ranks(runs: list[RunRank], folder: Path) -> str:
    """Write ``rank.md``, ``rank.json``, ``rank.png`` and ``rank.svg`` into a folder; return the text of ``rank.md``."""
    text = markdown(runs)
    with replacing(folder / "rank.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_json(folder / "rank.json", [asdict(run) for run in runs])
    draw(panels(runs), "Singular values of the update", [folder / "rank.png", folder / "rank.svg"])
    return text

"""``rank RUN``: measure the rank of a run's update in each layer, and score the run with its update cut to a rank."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from smoa_lightning.commands.arguments import (
    ArgumentParser,
    add_allow_classes,
    add_allow_other_backbone,
    add_backbone_path,
    check_adapter_folder,
)
from smoa_lightning.common.allowed_classes import allowing
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.fast_imports import import_command
from smoa_lightning.common.other_backbone import allowing_other_backbone
from smoa_lightning.common.paths import local_path
from smoa_lightning.records.tables import without_markup

LAYERS = 12  # measured by default


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    result = ArgumentParser(
        prog="python -m smoa_lightning rank",
        description="Measure the rank of a trained run's update in each layer, with the largest rank that its method "
        "allows. Writes rank.md, rank.json, rank.png and rank.svg to the run's folder and prints the table.",
    )
    result.add_argument("run", type=local_path, help="a run folder or an adapter folder")
    result.add_argument("--against", type=local_path, nargs="+", default=[], metavar="RUN", help="runs to compare with")
    result.add_argument("--layers", type=int, default=LAYERS, help="number of layers to measure (default: 12)")
    result.add_argument(
        "--truncate",
        action="store_true",
        help="also cut the update to rank 0, 1, 2, 4, ... in all layers and score the report rows of each run at each "
        "rank: truncation.md, .csv, .json, .png and .svg",
    )
    result.add_argument("--output", type=local_path, default=None, help="folder to write to (default: the run's)")
    add_backbone_path(result)
    add_allow_classes(result)
    add_allow_other_backbone(result)
    return result


def main(args: list[str]) -> None:
    """Measure the ranks, print the table and write the files.

    Raises:
        UserError: --layers is below 1, a folder holds no adapter, or an update has no rank.
    """
    options = parser().parse_args(args)
    if options.layers < 1:
        raise UserError(f"rank: --layers is {options.layers}, but at least 1 layer must be measured")
    with allowing(options.allow_classes), allowing_other_backbone(options.allow_other_backbone):
        _measure(options)


def _measure(options: argparse.Namespace) -> None:
    runs: list[Path] = [options.run, *options.against]
    for run in runs:
        check_adapter_folder(run)
    import_command("smoa_lightning.training.update_rank")
    import torch

    from smoa_lightning.common.quiet import quiet_libraries
    from smoa_lightning.training.rank_report import FILES, write_ranks
    from smoa_lightning.training.update_rank import measure

    quiet_libraries()
    rows = _rows(runs, options.backbone) if options.truncate else []
    with torch.no_grad():
        ranks = [measure(options.run, options.layers, backbone_folder=options.backbone)]
        names = [layer.name for layer in ranks[0].layers]
        ranks += [measure(run, options.layers, names, options.backbone) for run in options.against]
    folder: Path = options.output or options.run
    print(without_markup(write_ranks(ranks, folder)))
    print(f"written to {folder}: {', '.join(FILES)}")
    if options.truncate:
        _truncate([rank.label for rank in ranks], rows, folder)


def _rows(runs: list[Path], backbone: str | None) -> list[Any]:
    """Read the report rows of each run first: a run without rows is refused before a rank is measured."""
    from smoa_lightning.training.truncation import open_rows

    return [open_rows(run, backbone) for run in runs]


def _truncate(labels: list[str], rows: list[Any], folder: Path) -> None:
    from smoa_lightning.training.truncation import truncate
    from smoa_lightning.training.truncation_report import FILES, write_truncation

    runs = [truncate(label, *opened) for label, opened in zip(labels, rows, strict=True)]
    print(without_markup(write_truncation(runs, folder)))
    print(f"written to {folder}: {', '.join(FILES)}")

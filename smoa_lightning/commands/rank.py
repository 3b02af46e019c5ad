"""``rank RUN``: measure the rank of a run's update in each layer, and compare it with the bound of its method."""

from __future__ import annotations

import argparse
from pathlib import Path

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
    for run in (options.run, *options.against):
        check_adapter_folder(run)
    import_command("smoa_lightning.training.update_rank")
    import torch

    from smoa_lightning.common.quiet import quiet_libraries
    from smoa_lightning.training.rank_report import FILES, write_ranks
    from smoa_lightning.training.update_rank import measure

    quiet_libraries()
    with torch.no_grad():
        runs = [measure(options.run, options.layers, backbone_folder=options.backbone)]
        names = [layer.name for layer in runs[0].layers]
        runs += [measure(run, options.layers, names, options.backbone) for run in options.against]
    folder: Path = options.output or options.run
    print(write_ranks(runs, folder))
    print(f"written to {folder}: {', '.join(FILES)}")

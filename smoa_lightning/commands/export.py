"""``export RUN --output DIR``: write a trained run as a merged model, an adapter or a LoRA that other programs load."""

from __future__ import annotations

import argparse

from smoa_lightning.commands.arguments import (
    ArgumentParser,
    add_allow_classes,
    add_backbone_path,
    check_adapter_folder,
)
from smoa_lightning.common.allowed_classes import allowing
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.fast_imports import import_command
from smoa_lightning.common.paths import local_path

ROWS = 200


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    result = ArgumentParser(
        prog="python -m smoa_lightning export",
        description="Write the best adapter of a run as a folder that other programs load, with a report that compares "
        "it with the run.",
    )
    result.add_argument(
        "run", type=local_path, metavar="RUN", help="a run folder (its best adapter is used) or an adapter folder"
    )
    result.add_argument(
        "--output", type=local_path, required=True, metavar="DIR", help="folder to write; new, or empty"
    )
    result.add_argument(
        "--format",
        choices=("merged", "adapter", "lora"),
        default="merged",
        help="merged: a plain transformers folder (default); adapter: the peft folder; lora: the best LoRA of a rank",
    )
    result.add_argument(
        "--rank",
        type=int,
        default=None,
        metavar="R",
        help="rank of the LoRA (default: the exact rank where the method has one, else the smallest with an error of "
        "the update of at most 1 %%)",
    )
    result.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default=None,
        help="number format (default: that of the backbone's files; float32 for a LoRA)",
    )
    result.add_argument(
        "--fidelity_rows",
        type=int,
        default=ROWS,
        metavar="N",
        help=f"report rows for the metric before and after (default: {ROWS}); 0 measures no metric",
    )
    result.add_argument("--push", default=None, metavar="USER/NAME", help="upload the folder to this repository")
    add_backbone_path(result)
    add_allow_classes(result)
    return result


def main(args: list[str]) -> None:
    """Write the folder and print the fidelity report.

    Raises:
        UserError: An argument does not fit, or the run cannot be exported in this format.
    """
    options = parser().parse_args(args)
    _check(options)
    with allowing(options.allow_classes):
        if not (options.run / "weights" / "adapter_config.json").is_file():  # refused by name later
            check_adapter_folder(options.run)
        module = import_command("smoa_lightning.training.export.export")
        from smoa_lightning.common.quiet import quiet_libraries

        quiet_libraries()
        names = ("format", "rank", "dtype", "backbone", "fidelity_rows", "push")
        chosen = module.Options(**{name: getattr(options, name) for name in names})
        print(module.export(options.run, options.output, chosen))


def _check(options: argparse.Namespace) -> None:
    if options.rank is not None and options.format != "lora":
        raise UserError(f"export: --rank is for --format lora, but the format is {options.format}")
    if options.rank is not None and options.rank < 1:
        raise UserError(f"export: --rank is {options.rank}; the smallest value is 1")
    if options.dtype is not None and options.format == "adapter":
        raise UserError("export: --dtype is for --format merged or lora; an adapter is copied as it is")
    if options.fidelity_rows < 0:
        raise UserError(f"export: --fidelity_rows is {options.fidelity_rows}; the smallest value is 0")

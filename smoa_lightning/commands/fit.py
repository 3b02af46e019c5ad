"""``fit``, ``validate``, ``test`` and ``predict``: one training run, or the evaluation of one."""

from __future__ import annotations

from smoa_lightning.common.allowed_classes import allowing, split_packages
from smoa_lightning.common.fast_imports import import_command
from smoa_lightning.common.other_backbone import allowing_other_backbone, split_flag
from smoa_lightning.configuration import help_or_check, with_full_keys


def main(args: list[str], command: str = "fit") -> None:
    """Run one of Lightning's subcommands.

    Raises:
        UserError: Bad input.
    """
    packages, args = split_packages(args)
    other, args = split_flag(args)
    args = with_full_keys(command, args)
    if help_or_check(command, args):
        return
    FineTuneCLI = import_command("smoa_lightning.training.cli").FineTuneCLI
    import torch

    from smoa_lightning.common.quiet import quiet_libraries

    quiet_libraries()
    torch.set_float32_matmul_precision("high")
    with allowing(packages), allowing_other_backbone(other):
        run = FineTuneCLI([command, *args]).run
    if run is not None and run.result:
        print(run.result)

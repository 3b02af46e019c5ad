"""``generate RUN --prompt TEXT``: continue prompts with the best adapter of a run."""

from __future__ import annotations

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


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    result = ArgumentParser(
        prog="python -m smoa_lightning generate", description="Continue prompts with the best adapter of a run."
    )
    result.add_argument(
        "run", type=local_path, metavar="RUN", help="a run folder (its best adapter is used) or an adapter folder"
    )
    result.add_argument("--prompt", action="append", required=True, help="text to continue; may be given several times")
    result.add_argument(
        "--max_new_tokens", type=int, default=64, help="largest number of tokens in a continuation (default: 64)"
    )
    result.add_argument("--num_beams", type=int, default=1, help="width of the beam search; 1 is greedy (default)")
    add_backbone_path(result)
    add_allow_classes(result)
    add_allow_other_backbone(result)
    return result


def main(args: list[str]) -> None:
    """Print the continuations; with several prompts, print each prompt before its continuation.

    Raises:
        UserError: An argument is too small, or the folder holds no adapter.
    """
    options = parser().parse_args(args)
    for name in ("max_new_tokens", "num_beams"):
        if getattr(options, name) < 1:
            raise UserError(f"generate: --{name} is {getattr(options, name)}; the smallest value is 1")
    with allowing(options.allow_classes), allowing_other_backbone(options.allow_other_backbone):
        check_adapter_folder(options.run)
        generate = import_command("smoa_lightning.training.generate").generate
        from smoa_lightning.common.quiet import quiet_libraries

        quiet_libraries()
        texts = generate(options.run, options.prompt, options.max_new_tokens, options.num_beams, options.backbone)
    for prompt, text in zip(options.prompt, texts, strict=True):
        print(text.strip() if len(texts) == 1 else f"> {prompt}\n{text.strip()}\n")

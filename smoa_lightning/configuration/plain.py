"""The command lines of ``generate`` and ``rank``, apart from what they need to run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from smoa_lightning.common.errors import UserError

LAYERS = 12  # measured by ``rank``
FACTS = "smoa_lightning.json"  # what every adapter folder has


class PlainParser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, raised as UserError."""

    def error(self, message: str) -> NoReturn:
        """Name the command and where its help is."""
        command = self.prog.rpartition(" ")[2]
        raise UserError(f"{command}: {message}; see {command} --help")


def _generate() -> PlainParser:
    parser = PlainParser(
        prog="python -m smoa_lightning generate", description="Continue prompts with the best adapter of a run."
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, whose best adapter is taken, or an adapter folder")
    parser.add_argument("--prompt", action="append", required=True, help="text to continue; may be given several times")
    parser.add_argument("--max_new_tokens", type=int, default=64, help="most tokens in a continuation (default: 64)")
    parser.add_argument("--num_beams", type=int, default=1, help="width of the beam search; 1 is greedy (default)")
    return parser


def _rank() -> PlainParser:
    parser = PlainParser(
        prog="python -m smoa_lightning rank",
        description="How many directions the update of a trained run uses, layer by layer, beside what its method "
        "allows. Writes rank.md, rank.json, rank.png and rank.svg into the run's folder and prints the table.",
    )
    parser.add_argument("run", type=Path, help="folder of a run, or of an adapter")
    parser.add_argument("--against", type=Path, nargs="+", default=[], metavar="RUN", help="runs to compare with")
    parser.add_argument("--layers", type=int, default=LAYERS, help="how many layers are measured (default: 12)")
    parser.add_argument("--output", type=Path, default=None, help="folder to write to (default: the run's)")
    return parser


PARSERS = {"generate": _generate, "rank": _rank}
LEAST = {
    "generate": {"max_new_tokens": "; the smallest value is 1", "num_beams": "; the smallest value is 1"},
    "rank": {"layers": ", but at least 1 layer must be measured"},
}


def parse(command: str, args: list[str]) -> argparse.Namespace:
    """Parse what stands after ``generate`` or ``rank``.

    Raises:
        UserError: An unknown or missing argument, a number that makes no sense, a folder without an adapter.
        SystemExit: Help was asked for and printed.
    """
    parsed = PARSERS[command]().parse_args(args)
    for name, sentence in LEAST[command].items():
        if getattr(parsed, name) < 1:
            raise UserError(f"{command}: --{name} is {getattr(parsed, name)}{sentence}")
    for folder in [parsed.run, *getattr(parsed, "against", [])]:
        if not any((Path(folder) / inner / FACTS).is_file() for inner in ("", "adapter/best")):
            raise UserError(f"{folder} is neither a run with an adapter nor an adapter folder: it has no {FACTS}")
    return parsed

"""Runs a command that must be refused; the full parser of a command."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.training.cli import FineTuneCLI


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused, and return its one sentence."""
    capsys.readouterr()
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert len(text.strip().splitlines()) == 1, text
    return text


class ParserMade(Exception):
    pass


class ParserOnly(FineTuneCLI):
    """Stops where the parser is complete."""

    def parse_arguments(self, parser: Any, args: Any) -> NoReturn:
        raise ParserMade(parser)


def full_parser(command: str) -> Any:
    with pytest.raises(ParserMade) as made:
        ParserOnly([command] if command != "params" else [], run=command != "params")
    return made.value.args[0]

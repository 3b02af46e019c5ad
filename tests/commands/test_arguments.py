"""The commands with arguments of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from smoa_lightning.commands import export, generate, rank
from smoa_lightning.commands.arguments import check_adapter_folder
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import ADAPTER_FACTS


def test_arguments_of_generate_and_rank(tmp_path: Path) -> None:
    (tmp_path / ADAPTER_FACTS).write_text("{}")
    check_adapter_folder(tmp_path)
    given = [str(tmp_path), "--prompt", "a", "--prompt", "b", "--num_beams", "3"]
    asked = generate.parser().parse_args(given)
    assert (asked.prompt, asked.num_beams, asked.max_new_tokens) == (["a", "b"], 3, 64)
    assert rank.parser().parse_args([str(tmp_path)]).layers == rank.LAYERS
    with pytest.raises(UserError, match="/nowhere does not exist"):
        rank.main([str(tmp_path), "--against", "/nowhere"])


@pytest.mark.parametrize(
    ("main", "args", "words"),
    [
        (generate.main, ["--promt", "x"], "generate: unrecognized arguments: --promt: the nearest flag is --prompt;"),
        (export.main, ["run", "--ouput", "x"], "export: unrecognized arguments: --ouput: the nearest flag is --output"),
        (export.main, ["run", "--", "--output"], "the following arguments are required: --output"),
    ],
)
def test_a_typo_of_a_required_flag_is_named(main: Callable[[list[str]], None], args: list[str], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        main(args)


def test_a_check_of_arguments_comes_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--num_beams is 0; the smallest value is 1"):
        generate.main([str(tmp_path), "--prompt", "x", "--num_beams", "0"])
    with pytest.raises(UserError, match="--layers is 0, but at least 1 layer"):
        rank.main([str(tmp_path), "--layers", "0"])

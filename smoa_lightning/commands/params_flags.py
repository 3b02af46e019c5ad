"""The flags of ``params`` that are no settings, so that no file can contain them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smoa_lightning.common.errors import UserError


@dataclass(frozen=True)
class ParamsFlags:
    """The flags.

    Attributes:
        json: Whether JSON is printed.
        length: ``--length``, or None.
        targets: ``--targets``, or None.
        memory: Whether memory and disk are estimated.
    """

    json: bool = False
    length: int | None = None
    targets: int | None = None
    memory: bool = True


def split_flags(args: Sequence[str]) -> tuple[ParamsFlags, list[str]]:
    """Return the flags, and the arguments without them.

    Raises:
        UserError: A number is missing or below 1.

    >>> split_flags(["--config", "piqa", "--length=128", "--json"])
    (ParamsFlags(json=True, length=128, targets=None, memory=True), ['--config', 'piqa'])
    """
    rest: list[str] = []
    switches: set[str] = set()
    numbers: dict[str, int] = {}
    words = iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        if word in ("--json", "--no_memory"):
            switches.add(word)
        elif name in ("--length", "--targets"):
            numbers[name[2:]] = _number(name, value if equals else next(words, ""))
        else:
            rest.append(word)
    return ParamsFlags("--json" in switches, memory="--no_memory" not in switches, **numbers), rest


def _number(flag: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()) or int(value) < 1:
        raise UserError(f"params: {flag} is {value!r}, but takes a number of tokens of at least 1")
    return int(value)


def check_flags(flags: ParamsFlags, has_label: bool, reads_images: bool) -> None:
    """Refuse the length of rows that are images, and the targets of rows with a label.

    Raises:
        UserError: The message names the flag.
    """
    if flags.targets is not None and has_label:
        raise UserError(
            "params: --targets counts tokens that are predicted, but the rows have one label each: remove it"
        )
    if flags.length is not None and reads_images:
        raise UserError("params: --length counts tokens, but the rows are images: remove it")


def row_lengths(flags: ParamsFlags, max_length: int, context: int | None) -> tuple[int, int]:
    """Return the tokens of a row and its targets.

    Args:
        flags: The flags.
        max_length: ``data.max_length``.
        context: The largest number of tokens that the model takes; None without a limit.

    Raises:
        UserError: A row would be too long or too short.
    """
    most = max_length if context is None else min(max_length, context)
    length = most if flags.length is None else flags.length
    if context is not None and length > context:
        raise UserError(f"params: --length is {length}, but the model takes at most {context} tokens")
    if length < 2:
        raise UserError(
            f"params: --length is {length}, but a row has at least 2 tokens: one of the prompt and a target"
        )
    targets = length - 1 if flags.targets is None else flags.targets
    if targets >= length:
        raise UserError(
            f"params: --targets is {targets}, but a row of {length} tokens has at most {length - 1} targets"
        )
    return length, targets

"""Flags with the last word of a key, such as ``--lr``: each becomes the full key, as in studies."""

from __future__ import annotations

from collections.abc import Sequence

from smoa_lightning.common.allowed_classes import FLAG
from smoa_lightning.common.console import FLAGS
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.other_backbone import FLAG as OTHER_BACKBONE
from smoa_lightning.configuration.check import SPECIAL, Check
from smoa_lightning.configuration.composition import value_at
from smoa_lightning.configuration.key_names import OTHER_WORDS
from smoa_lightning.configuration.keys import Keys
from smoa_lightning.configuration.settings import CLASS_SETTINGS, owner_of

OTHERS = {*SPECIAL, *FLAGS, FLAG, OTHER_BACKBONE, "config"}


def with_full_keys(command: str, args: list[str]) -> list[str]:
    """Replace each flag that is the last word of one key by this key: ``--lr 1`` by ``--model.optimizer.lr 1``.

    A word that no key ends with stays, and the check of the arguments refuses it.

    Args:
        command: ``fit``, ``validate``, ``test``, ``predict`` or ``params``.
        args: Its arguments.

    Raises:
        UserError: A word may mean several keys.
    """
    check = Check(command, imports={"-h", "--help"}.isdisjoint(args))
    short = [word for word in args if _is_short(word, check)]
    if not short:
        return args
    try:
        check.arguments(_without(args, short))
    except UserError:
        return args  # the check of all arguments repeats the error, and begins with the first one
    keys = Keys({owner: _class_of(check, owner) for owner in CLASS_SETTINGS}, command, decided={})
    for setting in (each for own in check.own.values() for each in own.values()):
        keys.settings.setdefault(setting.key, []).append(setting)
    return [_full(word, keys) if word in short else word for word in args]


def _is_short(word: str, check: Check) -> bool:
    name = _name(word)
    known = name in check.known or name in check.groups or name in OTHERS or owner_of(name) is not None
    inside = any(name.startswith(f"{key}.") for key in (*check.groups, *check.known))
    return word.startswith("--") and bool(name) and not known and not inside and not name.endswith(".help")


def _name(word: str) -> str:
    return word[2:].partition("=")[0].removesuffix("+")


def _without(args: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return the arguments without some flags and their values."""
    rest: list[str] = []
    skips = False
    for word in args:
        is_flag = word.startswith("--") or word in ("-c", "-h")
        skips = word in words and "=" not in word if is_flag else skips
        if word not in words and not (skips and not is_flag):
            rest.append(word)
        skips = skips and is_flag
    return rest


def _class_of(check: Check, owner: str) -> list[str]:
    path = value_at(check.settings, f"{owner}.class_path")
    path = path if isinstance(path, str) else check.default_classes.get(owner)
    return [path] if path else []


def _full(word: str, keys: Keys) -> str:
    name = _name(word)
    ends = keys.ending(name)
    if len(ends) > 1:
        ends = [*(word for word in OTHER_WORDS.get(name, ()) if keys.known(word)), *ends]
        raise UserError(f"--{name} may mean {' or '.join(f'--{key}' for key in map(keys.short, ends))}")
    return f"--{keys.short(ends[0])}{word[2 + len(name) :]}" if ends else word

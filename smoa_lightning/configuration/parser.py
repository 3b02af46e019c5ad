"""The real parser: errors in one sentence, and strategies of any ``peft.PeftConfig``."""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import Any, NoReturn

from jsonargparse import add_instantiator
from lightning.pytorch.cli import LightningArgumentParser
from peft import PeftConfig

from smoa_lightning.common.errors import UserError, nearest, the_nearest
from smoa_lightning.common.registered import require_registered
from smoa_lightning.configuration import unknown_key
from smoa_lightning.configuration.combinations import check_combinations
from smoa_lightning.configuration.ranges import SHARES, check_value

UNKNOWN_KEY = re.compile(
    r"(?:key|option) ['\"]?([\w.]+)['\"]? is not expected|unrecognized arguments: --([\w.]+)"
    r"|does not accept option ['\"]([\w.]+)",
    re.IGNORECASE,
)
LONGEST = 1500  # characters of a message
DENIED = re.compile(r"Importing '([^']+)' is not allowed")
UNION = re.compile(r"Does not validate against any of the Union subtypes .*? Errors: - (.*?)(?: - | Given val).*")
PATH = re.compile(r"- Expected a path but .*? either not accessible or invalid - ")
GIVEN_VALUE = re.compile(r"model\.adapter.*Given value: ([A-Za-z_][\w.]*)$")


class OneSentenceParser(LightningArgumentParser):
    """A parser whose errors are one sentence with the nearest valid value, raised as UserError."""

    def __init__(self, *args: Any, allow_abbrev: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=allow_abbrev, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse, then refuse values without a meaning, with the rules of the early check.

        Raises:
            UserError: A value is out of its range, has too many digits for a float, or contradicts another one.
        """
        for action in self._actions:  # typing may return `float | int` for `int | float`, and 3 batches become 3.0
            if action.dest in SHARES:
                action._typehint = int | float | None  # type: ignore[attr-defined]
        try:
            parsed = super().parse_args(*args, **kwargs)
        except OverflowError as error:  # jsonargparse does not say which value
            raise UserError("a whole number has too many digits: it must be below 2^63") from error
        chosen = parsed.get("subcommand")
        settings = parsed if chosen is None else parsed[chosen]
        for key, value in vars(settings.as_flat()).items():
            check_value(key, value)
        if chosen == "fit":
            check_combinations(settings.get)
        return parsed

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Shorten jsonargparse's error to the wrong value and the nearest valid values."""
        text = " ".join(message.split())
        if unknown := UNKNOWN_KEY.search(text):
            key = unknown[1] or unknown[2] or unknown[3]
            known = list(self.get_defaults(skip_validation=True).keys(branches=True))
            raise UserError(unknown_key(key, known)) from ex
        if denied := DENIED.search(text):
            raise UserError(f"{denied[1]!r} is not allowed as the class of a setting") from ex
        if given := GIVEN_VALUE.search(text):
            raise UserError(_unknown_strategy(given[1])) from ex
        text = re.sub(r'^Parser key "([\w.]+)":', r"\1:", UNION.sub(r"\1", PATH.sub("", text)))
        raise UserError(text if len(text) <= LONGEST else f"{text[: LONGEST - 200]} ... {text[-200:]}") from ex


def _unknown_strategy(class_path: str) -> str:
    """Return the message about an unknown strategy, with the nearest classes of the same package."""
    package = class_path.rpartition(".")[0]
    package = package if package in sys.modules else "peft"  # an unknown package is not imported for a message
    configs = [n for n, m in vars(sys.modules[package]).items() if isinstance(m, type) and issubclass(m, PeftConfig)]
    if not configs:
        return f"model.adapter: {class_path!r} is not a class of a strategy, such as peft.LoraConfig"
    close = nearest(class_path.rpartition(".")[2], configs, 3)
    return f"model.adapter: there is no strategy {class_path!r}; {the_nearest(close, f'class in {package}')}"


_refused: list[UserError] = []  # errors of a strategy's own checks; the parser wraps them beyond recognition


def _make_strategy(class_type: type[PeftConfig], *args: Any, **kwargs: Any) -> PeftConfig:
    """Make a strategy from its settings.

    Nested settings with only default values are left out, since peft takes some of them as a request for a feature.
    """
    set_by_user = {
        name: value
        for name, value in kwargs.items()
        if not (dataclasses.is_dataclass(value) and not isinstance(value, type) and value == type(value)())
    }
    try:
        made = class_type(*args, **set_by_user)
        require_registered(made)
        return made
    except Exception as error:
        _refused.append(error if isinstance(error, UserError) else UserError(f"{class_type.__name__}: {error}"))
        raise


def refused_strategy() -> UserError | None:
    """Return and remove the error of the last strategy that could not be made."""
    return _refused.pop() if _refused else None


add_instantiator(_make_strategy, PeftConfig, subclasses=True)  # type: ignore[arg-type]

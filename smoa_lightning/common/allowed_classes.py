"""The packages whose classes a checkpoint or an adapter folder may name, and the flag that adds packages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from smoa_lightning.common.errors import UserError

TRUSTED = ("lightning", "peft", "smoa_lightning", "torch", "torchmetrics", "transformers")
FLAG = "allow_classes"
HELP = "package whose classes a checkpoint or an adapter folder may name; give it again for further packages"

_added: tuple[str, ...] = ()


def allowed_packages() -> tuple[str, ...]:
    """Return the packages whose classes a checkpoint or an adapter folder may name."""
    return (*TRUSTED, *_added)


def added_packages() -> tuple[str, ...]:
    """Return the packages that the user has added to the trusted ones."""
    return _added


def is_allowed(path: str) -> bool:
    """Whether a class or module is in an allowed package.

    >>> is_allowed("peft.LoraConfig"), is_allowed("os.system"), is_allowed("peftish.LoraConfig")
    (True, False, False)
    """
    return any(path == package or path.startswith(f"{package}.") for package in allowed_packages())


@contextlib.contextmanager
def allowing(packages: Sequence[str]) -> Iterator[None]:
    """Allow the classes of further packages until the end of the block.

    Raises:
        UserError: A name is not the name of a package.
    """
    global _added
    for name in packages:
        if not all(word.isidentifier() for word in name.split(".")) or name.split(".")[0] == "jsonargparse":
            raise UserError(f"--{FLAG} is {name!r}, but takes the name of a package, such as mypackage")
    before, _added = _added, (*_added, *packages)
    try:
        yield
    finally:
        _added = before


def split_packages(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the values of the flag, and the arguments without it.

    The flag is not a setting, so no file can contain it.

    >>> split_packages(["--allow_classes", "mine", "--ckpt_path", "a.ckpt", "--allow_classes=yours"])
    (['mine', 'yours'], ['--ckpt_path', 'a.ckpt'])

    Raises:
        UserError: The flag has no value.
    """
    packages: list[str] = []
    rest: list[str] = []
    words = iter(args)
    for word in words:
        if word == f"--{FLAG}":
            packages.append(next(words, ""))
        elif word.startswith(f"--{FLAG}="):
            packages.append(word.partition("=")[2])
        else:
            rest.append(word)
    return packages, rest

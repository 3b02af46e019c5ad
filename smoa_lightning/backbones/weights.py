"""Checks of loaded weights: each parameter comes from the files of the backbone, and all its values are finite."""

from __future__ import annotations

import contextlib
import fnmatch
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from smoa_lightning.common.errors import UserError

SHOWN = 3  # names in a message
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)  # torch computes no minimum of 8-bit floats
PIECE = 2**26  # values that are checked at a time


def check_complete(report: Mapping[str, Any], allowed: Collection[str], name: str) -> None:
    """Refuse weights that the files lack, or have in a different shape: transformers fills them at random.

    Args:
        report: ``missing_keys`` and ``mismatched_keys`` of transformers' ``output_loading_info``.
        allowed: Names, or patterns with ``*``, of parameters that may be missing.
        name: Repository or folder, for the message.

    Raises:
        UserError: The message has the names of the parameters, or a name in ``allowed`` that is not missing.
    """
    shapes = sorted(report["mismatched_keys"])
    if shapes:
        first, found, needed = shapes[0][:3]
        raise UserError(
            f"the weights of {name!r} do not fit its config.json: {first} is {tuple(found)} in the files and "
            f"{tuple(needed)} in the model{_others(len(shapes) - 1)}"
        )
    absent = sorted(report["missing_keys"])
    refused = [key for key in absent if not any(fnmatch.fnmatchcase(key, pattern) for pattern in allowed)]
    if refused:
        raise UserError(
            f"the files of {name!r} lack weights of the model ({_listed(refused)}), so they would be random; "
            f"{_remedy(refused)}"
        )
    unused = [pattern for pattern in allowed if not fnmatch.filter(absent, pattern)]
    if unused:
        have = f"the missing weights are {_listed(absent)}" if absent else "no weight is missing"
        raise UserError(f"model.backbone.allow_missing names {unused[0]!r}, but of {name!r} {have}")


def _remedy(refused: list[str]) -> str:
    if all(".pooler." in key for key in refused):  # as in BERT trained to fill in masks only
        names = ", ".join(dict.fromkeys(f"'{key.partition('.pooler.')[0]}.pooler.*'" for key in refused))
        return (
            "use an encoder with a pooler, such as RoBERTa's or BERT's of the hub, or allow it with "
            f"model.backbone.allow_missing: [{names}] and train it with model.adapter.modules_to_save: [pooler]"
        )
    return "use a model whose files are complete, or name them in model.backbone.allow_missing"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _others(count: int) -> str:
    return f", and {count} more differ" if count else ""


@contextlib.contextmanager
def same_random_values(wanted: bool) -> Iterator[None]:
    """Fill missing weights with the same values in every run, also when an adapter is loaded later."""
    with torch.random.fork_rng(devices=[]) if wanted else contextlib.nullcontext():
        if wanted:
            torch.default_generator.manual_seed(0)  # torch.manual_seed also sets the generators of all devices
        yield


@torch.no_grad()
def check_finite(model: nn.Module, name: str) -> None:
    """Refuse a weight with a value that is NaN or infinite: every score would be wrong.

    Packed weights of 8 and 4 bits are not checked.

    Raises:
        UserError: The message has the name of the first such parameter.
    """
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        wrong = _not_finite(tensor) if tensor.dtype in FLOATS and not tensor.is_meta else None
        # a buffer may hold -inf as a mask, but no buffer may hold NaN
        if wrong is not None and (isinstance(tensor, nn.Parameter) or math.isnan(wrong)):
            raise UserError(
                f"the weights of {name!r} are damaged: {key} has a value that is {wrong}; download or save the model "
                "again"
            )


def _not_finite(tensor: Tensor) -> float | None:
    """Return a value of a tensor that is not finite, without a second tensor of its size."""
    for piece in tensor.reshape(-1).split(PIECE):
        for extreme in piece.aminmax() if piece.numel() else ():  # NaN if any value is NaN
            if not math.isfinite(value := float(extreme)):
                return value
    return None

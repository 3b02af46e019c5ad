"""``target_parameters`` of peft's LoRA: parameters without a layer of their own, such as those of fused experts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from smoa_lightning.common.errors import UserError, nearest, the_nearest


def is_named(name: str, target: str) -> bool:
    """Whether a full name is a target or ends with it, as peft reads ``target_parameters``."""
    return name == target or name.endswith(f".{target}")


def check_parameters(model: nn.Module, settings: Any) -> None:
    """Refuse ``target_parameters`` that name no parameter, or that a selection of layers is set for.

    peft leaves out a wrong entry without a message, and selects only modules.
    """
    targets = getattr(settings, "target_parameters", None) or ()
    names = [name for name, _ in model.named_parameters()]
    for target in targets:
        if not any(is_named(name, target) for name in names):
            near = the_nearest(nearest(target, dict.fromkeys(re.sub(r"^.*\.\d+\.", "", n) for n in names), 3), "name")
            raise UserError(
                f"target_parameters entry {target!r} matches no parameter of {type(model).__name__}; {near}."
            )
    for selection in ("layers_to_transform", *(() if settings.target_modules else ("exclude_modules",))):
        if targets and getattr(settings, selection, None) not in (None, []):
            raise UserError(
                f"{selection} has no effect on target_parameters: give the full names of the parameters, such as "
                f"{next(name for name in names if is_named(name, targets[0]))}, and remove {selection}."
            )


def parameter_shapes(model: nn.Module, config: Any) -> Iterator[tuple[int, int]]:
    """Yield the last two sides of each parameter that ``target_parameters`` name; the others count experts."""
    targets = getattr(config, "target_parameters", None) or ()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and any(is_named(name, target) for target in targets):
            yield parameter.shape[-2], parameter.shape[-1]

"""Ranks and scales of single layers: ``rank_pattern`` and ``alpha_pattern``, as in peft's LoRA."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from peft.utils.other import get_pattern_key

from smoa_lightning.adapters.tuner.config import TunerConfig
from smoa_lightning.common.errors import UserError, nearest, the_nearest


@dataclass
class PatternConfig(TunerConfig):
    """A config whose rank and alpha can differ between layers.

    Args:
        rank_pattern: Name of a layer, or a regular expression of such names -> its rank instead of the common one. A
            name may leave out its first parts, as in ``{"q_proj": 4, "layers.0.mlp.up_proj": 16}``. The first entry
            that matches decides. For SURM it is ``kronecker_rank`` or ``displacement_rank``, depending on the
            structure; for KRAdapter it is ``k1``.
        alpha_pattern: The same for alpha; for KRAdapter it is ``scaling``.
    """

    rank_pattern: dict[str, int] | None = field(default=None)
    alpha_pattern: dict[str, float] | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rank_pattern", "alpha_pattern"):
            for pattern in getattr(self, name) or {}:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise UserError(
                        f"{type(self).__name__}.{name} has the entry {pattern!r}, which is not a valid regular "
                        f"expression: {error}."
                    ) from error

    @property
    def rank_field(self) -> str | None:
        """Name of the field that ``rank_pattern`` changes; None if the method has no rank."""
        return "r"

    @property
    def alpha_field(self) -> str:
        """Name of the field that ``alpha_pattern`` changes."""
        return "alpha"

    def require_rank_field(self) -> None:
        """Raise a UserError if ``rank_pattern`` is set for a method without a rank."""
        if self.rank_pattern and self.rank_field is None:
            raise UserError(
                f"{type(self).__name__}.rank_pattern is set, but this structure has no rank: remove rank_pattern or "
                "choose structure 'kronecker' or 'ldr'."
            )

    def for_layer(self, name: str) -> Self:
        """Return the config of one layer, without patterns; the same object if no pattern matches.

        Raises:
            UserError: The rank or alpha in a pattern is not valid.
        """
        changes: dict[str, Any] = {}
        for pattern_name, changed in (("rank_pattern", self.rank_field), ("alpha_pattern", self.alpha_field)):
            patterns = getattr(self, pattern_name) or {}
            key = get_pattern_key(list(patterns), name)
            if key in patterns and changed is not None:
                changes[changed] = patterns[key]
        if not changes:
            return self
        config = copy.copy(self)
        for changed, value in {**changes, "rank_pattern": None, "alpha_pattern": None}.items():
            setattr(config, changed, value)
        try:
            config.__post_init__()
        except UserError as error:
            raise UserError(f"rank_pattern or alpha_pattern does not fit layer {name}: {error}") from error
        return config

    def check_patterns(self, layers: Iterable[str]) -> None:
        """Refuse a pattern that matches none of the adapted layers.

        Raises:
            UserError: The message shows the nearest names.
        """
        names = list(layers)
        for pattern_name in ("rank_pattern", "alpha_pattern"):
            for pattern in getattr(self, pattern_name) or {}:
                if not any(get_pattern_key([pattern], name) == pattern for name in names):
                    near = nearest(pattern, dict.fromkeys(name.rpartition(".")[2] for name in names), 3)
                    raise UserError(
                        f"{type(self).__name__}.{pattern_name} has the entry {pattern!r}, which matches no adapted "
                        f"layer; {the_nearest(near, 'name')}."
                    )

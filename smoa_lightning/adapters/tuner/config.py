"""Shared by the configs of all our own methods: targets, and checks with one-sentence errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Self, get_args

from peft import PeftConfig
from torch import nn

from smoa_lightning.adapters.targets import DEFAULT_TARGETS
from smoa_lightning.adapters.tuner.frozen import linear_shape
from smoa_lightning.adapters.tuner.other_layers import update_shape
from smoa_lightning.common.errors import UserError, nearest


@dataclass
class TunerConfig(PeftConfig):
    """The modules to adapt, and further modules to train.

    Args:
        target_modules: Names of the layers to adapt: a list of names, a regular expression, ``all-linear``, or
            absent for the default of the architecture.
        exclude_modules: Names or a regular expression of layers to leave out.
        layers_to_transform: Index or indices of the transformer layers to adapt; absent means all.
        layers_pattern: Name of the list of transformer layers, needed only if it is not found automatically.
        modules_to_save: Further modules that are trained and saved in full.
    """

    Type: ClassVar[type[Enum] | None] = None  # of ``register_method``; its single member is the name of the method
    other_layers: ClassVar[bool] = False  # whether embeddings and convolutions can be adapted

    target_modules: list[str] | str | None = field(default=None)
    exclude_modules: list[str] | str | None = field(default=None)
    layers_to_transform: list[int] | int | None = field(default=None)
    layers_pattern: list[str] | str | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        if self.Type is not None:
            (self.peft_type,) = self.Type  # type: ignore[assignment]
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if isinstance(value, set | tuple | frozenset):
                setattr(self, name, sorted(value))  # JSON-safe, and the same file in every process
        if isinstance(self.target_modules, str):
            for name in ("layers_to_transform", "layers_pattern"):
                if getattr(self, name) is not None:
                    raise UserError(
                        f"{type(self).__name__}.{name} needs target_modules to be a list of names, but it is the text "
                        f"{self.target_modules!r}; write the layer indices into the regular expression instead."
                    )
        if self.layers_pattern and self.layers_to_transform is None:
            raise UserError(
                f"{type(self).__name__}.layers_pattern has no effect without layers_to_transform: set both or neither."
            )

    def default_targets(self, model_type: str) -> list[str] | str | None:
        """Return the default of ``target_modules`` for one architecture.

        None means that there is no default and the user must name the modules.
        """
        return list(DEFAULT_TARGETS.get(model_type, [])) or "all-linear"

    def for_layer(self, name: str) -> Self:
        """Return the config of one layer; the same for every layer by default."""
        return self

    def become_sum(self, configs: Sequence[Any], kind: str, svd_rank: int | None) -> None:
        """Change this copy of the first config so that its adapter can hold a weighted sum of their updates.

        Raises:
            UserError: It cannot; this is the default.
        """
        raise UserError(
            f"add_weighted_adapter: {type(self).__name__} cannot hold a sum of updates: convert each adapter with "
            "peft's convert_to_lora, if it updates a weight, and combine the LoRAs."
        )

    def check_patterns(self, layers: Iterable[str]) -> None:
        """Refuse a setting for single layers that fits none of the adapted layers; does nothing by default."""

    def check_target(self, name: str, module: nn.Module) -> None:
        """Refuse a module that cannot be adapted, before any module is replaced.

        Raises:
            UserError: It cannot be adapted; the message names the module, the setting and its valid range.
        """
        shape = update_shape(module) if self.other_layers else linear_shape(module)
        if shape is None:
            kinds = "nn.Linear or Conv1D"
            if self.other_layers:
                kinds = "nn.Linear, Conv1D, nn.Conv2d or nn.Embedding (without max_norm)"
            raise UserError(
                f"{type(self).__name__} cannot adapt layer {name}: it is {type(module).__name__}, but must be "
                f"{kinds} with floating-point weights."
            )
        self.check_layer(name, *shape)
        if isinstance(module, nn.Embedding):
            self.check_embedding(name, *shape)

    def check_embedding(self, name: str, out_features: int, in_features: int) -> None:
        """Refuse settings that do not fit an embedding of this shape; accepts every shape by default."""

    def check_layer(self, name: str, out_features: int, in_features: int) -> None:
        """Refuse settings that do not fit a linear layer of this shape; accepts every shape by default."""

    # ------------------------------------------------------------------------------------------ checks of settings

    def require_choice(self, name: str, literal: Any) -> None:
        """Raise a UserError unless a field has a value of a Literal."""
        value, allowed = getattr(self, name), get_args(literal)
        if value not in allowed:
            raise UserError(
                f"{type(self).__name__}.{name} is {value!r}, but must be one of {', '.join(map(str, allowed))}; "
                f"nearest: {nearest(str(value), map(str, allowed), 1)}."
            )

    def require_integer(self, name: str, minimum: int, value: Any = None) -> None:
        """Raise a UserError unless a field, or ``value``, is an integer of at least ``minimum``."""
        value = getattr(self, name) if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise UserError(f"{type(self).__name__}.{name} is {value!r}, but must be an integer of at least {minimum}.")

    def require_dropout(self) -> None:
        """Raise a UserError unless the field ``dropout`` is a probability below 1."""
        value = self.dropout  # type: ignore[attr-defined]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise UserError(f"{type(self).__name__}.dropout is {value!r}, but must be at least 0 and less than 1.")

    def require_alpha(self) -> None:
        """Raise a UserError unless the field ``alpha`` is absent or a finite number above 0."""
        self.require_positive("alpha")

    def require_positive(self, name: str) -> None:
        """Raise a UserError unless a field is absent or a finite number above 0."""
        value = getattr(self, name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf")
        ):
            raise UserError(f"{type(self).__name__}.{name} is {value!r}, but must be above 0, or absent.")

"""What a run keeps from an earlier class: ``--model.adapter peft.LoraConfig`` after a file with SMoA keeps its rank."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smoa_lightning.configuration.composition import value_at
from smoa_lightning.configuration.settings import ABSENT

logger = logging.getLogger(__name__)
LEARNING_RATE = "model.optimizer.init_args.lr"


@dataclass
class KeptSettings:
    """Follows the settings that were made for one class and now hold for another one.

    Attributes:
        changes: ``model.adapter`` or ``model.optimizer`` -> the class before, and the kept keys with their values.
    """

    changes: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    def class_changed(self, owner: str, before: Any, settings: Mapping[str, Any], recent: set[str]) -> None:
        """Note what a class setting keeps.

        Args:
            owner: The class setting.
            before: Its class path before.
            settings: The settings after the change.
            recent: Keys that the same file, or other flags, have set.
        """
        now = value_at(settings, f"{owner}.class_path")
        self.changes.pop(owner, None)
        if not isinstance(before, str) or not isinstance(now, str) or before == now:
            return
        arguments = value_at(settings, f"{owner}.init_args")
        kept = {f"{owner}.init_args.{name}": value for name, value in arguments.items()}
        rate = value_at(settings, LEARNING_RATE)
        if owner == "model.adapter" and rate is not ABSENT:
            kept[LEARNING_RATE] = rate
        self.changes[owner] = before, {key: value for key, value in kept.items() if key not in recent}

    def set_again(self, key: str) -> None:
        """Forget a key that a later file or flag sets."""
        for _, kept in self.changes.values():
            kept.pop(key, None)

    def report(self, settings: Mapping[str, Any]) -> None:
        """Log one note for each class setting that keeps something."""
        for owner, (before, kept) in self.changes.items():
            values = [f"{key.replace('.init_args.', '.')} {value}" for key, value in kept.items()]
            if values:
                now = value_at(settings, f"{owner}.class_path")
                logger.info("%s is %s; set for %s and kept: %s", owner, now, before, ", ".join(values))

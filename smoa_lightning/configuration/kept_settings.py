"""What a run keeps from an earlier class: ``--model.adapter peft.LoraConfig`` after a file with SMoA keeps its rank."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smoa_lightning.configuration.composition import value_at
from smoa_lightning.configuration.settings import ABSENT, class_settings

logger = logging.getLogger(__name__)
LEARNING_RATE = "model.optimizer.init_args.lr"


@dataclass
class _Change:
    """A class that is named after other settings of its owner.

    Args:
        before: The class path before; it may be the same.
        kept: Settings from before that still hold.
        lost: Settings from before that the new class takes under another name: ``dropout``, which is ``lora_dropout``.
    """

    before: str
    kept: dict[str, Any]
    lost: dict[str, tuple[Any, str]]


@dataclass
class KeptSettings:
    """Follows the settings that were made for one class and now hold for another one, or for the same in a new file.

    Attributes:
        changes: ``model.adapter`` or ``model.optimizer`` -> what its last class path has kept.
    """

    changes: dict[str, _Change] = field(default_factory=dict)

    def class_named(
        self, owner: str, before: Mapping[str, Any], settings: Mapping[str, Any], recent: set[str], in_file: bool
    ) -> None:
        """Note what a class setting keeps.

        Args:
            owner: The class setting.
            before: Its ``class_path`` and ``init_args`` before.
            settings: The settings after the change.
            recent: Keys that the same file, or other flags, have set.
            in_file: Whether a file names the class. A file that names the same class again is for other settings.
        """
        old, now = before.get("class_path"), value_at(settings, f"{owner}.class_path")
        self.changes.pop(owner, None)
        if not isinstance(old, str) or not isinstance(now, str) or (old == now and not in_file):
            return
        arguments = value_at(settings, f"{owner}.init_args")
        kept = {f"{owner}.init_args.{name}": value for name, value in arguments.items()}
        names = [] if old == now else [key.rpartition(".")[2] for key in class_settings(owner, now)]
        lost = {
            f"{owner}.init_args.{name}": (value, own)
            for name, value in (before.get("init_args") or {}).items()
            for own in names
            if own.endswith(f"_{name}") and name not in arguments and value is not None
        }
        rate = value_at(settings, LEARNING_RATE)
        if owner == "model.adapter" and rate is not ABSENT:
            kept[LEARNING_RATE] = rate
        self.changes[owner] = _Change(old, {key: value for key, value in kept.items() if key not in recent}, lost)

    def set_again(self, key: str) -> None:
        """Forget a key that a later file or flag sets."""
        for change in self.changes.values():
            change.kept.pop(key, None)

    def report(self, settings: Mapping[str, Any]) -> None:
        """Log one note for each class setting that keeps or loses something."""
        for owner, change in self.changes.items():
            now = value_at(settings, f"{owner}.class_path")
            again = change.before == now
            origin = "an earlier file" if again else change.before
            parts = [f"set {'by' if again else 'for'} {origin} and kept: {_listed(change.kept)}"] if change.kept else []
            for key, (value, own) in change.lost.items():
                if value_at(settings, f"{owner}.init_args.{own}") is ABSENT:
                    parts.append(f"set for {origin} and not kept: {_listed({key: value})} (its setting is {own})")
            if parts:
                logger.info("%s is %s%s; %s", owner, now, " again" if again else "", "; ".join(parts))


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('.init_args.', '.')} {value}" for key, value in settings.items())

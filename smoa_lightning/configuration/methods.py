"""The data about all strategies of ``experiments/adapters``: equation, parameters, rank bound, source; no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from smoa_lightning.configuration.shipped_files import shipped_files
from smoa_lightning.configuration.yaml_files import read_yaml

FILE = Path(__file__).with_name("methods.yaml")
FUNCTIONS = {"floor": math.floor, "ceil": math.ceil, "sqrt": math.sqrt, "max": max, "int": int}


@dataclass(frozen=True)
class Method:
    """A strategy; the keys are described in ``methods.yaml``.

    Attributes:
        key: Name of its file.
        group: ours, peft or none.
        name: Name of the method.
        update: The change of W, or of the hidden states.
        per: matrix, slot or model.
        trainable: Number of trainable parameters, as text.
        formula: The same in Python.
        rank: Bound of the rank, as text.
        bound: The same in Python; None if it is not a weight update.
        source: The paper.
        merge: Whether the update can be merged into W.
        budget: The settings that ``model.budget`` chooses.
    """

    key: str
    group: str
    name: str
    update: str
    per: str
    trainable: str
    formula: str
    rank: str
    bound: str | None
    source: str
    merge: bool
    budget: tuple[str, ...]

    @property
    def file(self) -> Path:
        """Its YAML file."""
        return shipped_files("experiments")[f"adapters/{self.key}"]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the strategy in its file."""
        adapter = self._model().get("adapter") or {}
        return dict(adapter.get("init_args") or {})

    @property
    def class_path(self) -> str | None:
        """The class of the strategy in its file; None without an adapter."""
        adapter = self._model().get("adapter")
        return None if adapter is None else str(adapter["class_path"])

    def _model(self) -> Mapping[str, Any]:
        content: Mapping[str, Any] = read_yaml(self.file, "").value
        model: Mapping[str, Any] = content["model"]
        return model

    def facts(self) -> dict[str, Any]:
        """Return the facts for JSON."""
        shown = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("key",)}
        return {"key": self.key, **shown, "budget": list(self.budget), "class_path": self.class_path}

    def parameters(self, **names: float) -> float:
        """Return the number of trainable parameters of a matrix, a slot or a model.

        Args:
            names: d_in, d_out and the other names that ``methods.yaml`` lists.
        """
        return self._value(self.formula, names)

    def rank_bound(self, **names: float) -> int:
        """Return the bound of the rank for a matrix; 0 if the strategy does not update a weight."""
        return 0 if self.bound is None else int(min(names["m"], self._value(self.bound, names)))

    def _value(self, expression: str, names: Mapping[str, float]) -> float:
        # the expressions are those of the package's own file
        return float(eval(expression, {"__builtins__": {}}, {**FUNCTIONS, "side": side, **self.settings, **names}))


def side(n: int) -> int:
    """Return the largest divisor of n that is at most its square root: LoKr splits n into this and n / this.

    >>> [side(n) for n in (1, 13, 192, 512)]
    [1, 1, 12, 16]
    """
    return next(divisor for divisor in range(math.isqrt(n), 0, -1) if n % divisor == 0)


@cache
def methods() -> Mapping[str, Method]:
    """Return name of the file -> strategy, ours first."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {
        key: Method(key, **{**entry, "formula": str(entry["formula"]), "budget": tuple(entry["budget"])})
        for key, entry in content.items()
    }

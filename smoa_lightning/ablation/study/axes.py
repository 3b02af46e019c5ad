"""Axes of a study: their values, the settings of each value, and all combinations."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.study.study_file import find_file
from smoa_lightning.common.errors import UserError, nearest, the_nearest
from smoa_lightning.configuration.keys import Keys
from smoa_lightning.configuration.settings import CLASS_SETTINGS
from smoa_lightning.configuration.yaml_files import LocatedYaml, read_flag

FILE_ENDINGS = (".yaml", ".yml")
FILE_SETTINGS = ("like", "path")  # last words of settings that may have the name of a YAML file as value
_NOT_IN_NAMES = re.compile(r"[^\w.+:@-]+")  # labels are parts of the names of folders and runs

MOST_CELLS = 10_000


@dataclass(frozen=True)
class Value:
    """One value of an axis.

    Attributes:
        label: Label in names of cells; unique on its axis.
        value: The plain value of a configuration key, else the label.
        files: Configuration files that the value adds.
        settings: Full configuration key -> value.
    """

    label: str
    value: Any
    files: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        name: Name in the study file.
        shown: Name in names of cells: the last word of ``name``, if no other axis ends with it.
        key: Full configuration key; ``None`` if the values are files or set several keys.
        values: Values in the order of the file.
    """

    name: str
    shown: str
    key: str | None
    values: tuple[Value, ...]

    @property
    def keys(self) -> set[str]:
        """All configuration keys that a value sets directly, without the keys in its files."""
        return {key for value in self.values for key in value.settings}

    def find(self, given: Any) -> Value | None:
        """Return the value with this label, or with this text in the study file.

        YAML reads the labels no, on, off, yes and 1e-3 as keys unchanged, but as values it makes them booleans and
        numbers. So a value also finds the one label that YAML reads as this value.
        """
        text = label_of(Path(given).stem if names_file(given, self.name) else given, self.key)
        found = next((value for value in self.values if value.label in (given, text)), None)
        if found is not None or isinstance(given, str):
            return found
        read = [value for value in self.values if _same(read_flag(value.label, self.name).value, given)]
        return read[0] if len(read) == 1 else None


def _same(first: Any, second: Any) -> bool:
    return type(first) is type(second) and bool(first == second)


def label_of(value: Any, key: str | None = None) -> str:
    """Return the label of a plain value.

    >>> label_of(0.001), label_of(None), label_of(["q_proj", "v_proj"]), label_of("peft.LoraConfig", "model.adapter")
    ('0.001', 'null', 'q_proj+v_proj', 'LoraConfig')
    """
    if isinstance(value, str):
        text = value.rpartition(".")[2] if key in CLASS_SETTINGS else value
    elif isinstance(value, list) and value and not any(isinstance(item, list | Mapping) for item in value):
        text = "+".join(map(label_of, value))
    else:
        text = json.dumps(value, sort_keys=True, default=str)
    return _NOT_IN_NAMES.sub("_", text) or "_"


def names_file(value: Any, name: str) -> bool:
    """Whether a plain value of an axis is the name of a configuration file, and not the value of a setting."""
    return isinstance(value, str) and value.endswith(FILE_ENDINGS) and name.rpartition(".")[2] not in FILE_SETTINGS


def parse_axes(tree: LocatedYaml, keys: Keys) -> tuple[Axis, ...]:
    """Read the axes of a study; an axis that is ``null`` is removed.

    Raises:
        UserError: There is no axis, a key is unknown, a setting cannot take a value, an axis has a value twice, or two
            axes set the same key.
    """
    given = tree.value.get("axes")
    if given is not None and not isinstance(given, dict):
        raise UserError(f"{tree.where('axes')}axes must be names with lists of values, such as r: [4, 8]")
    listed = {name: values for name, values in (given or {}).items() if values is not None}
    if not listed:
        raise UserError(f"{tree.where('axes')}a study needs axes, such as r: [4, 8]")
    axes = tuple(_axis(name, values, tree, keys, _shown(name, listed)) for name, values in listed.items())
    for first, second in combinations(axes, 2):
        if both := sorted(first.keys & second.keys):
            raise UserError(
                f"{tree.where('axes', second.name)}the axes {first.name!r} and {second.name!r} both set {both[0]}"
            )
    return axes


def _shown(name: str, names: Mapping[str, Any]) -> str:
    """Return the fewest last words of a name that no other axis ends with."""
    words = name.split(".")
    for count in range(1, len(words)):
        short = ".".join(words[-count:])
        if not any(other != name and f".{other}".endswith(f".{short}") for other in names):
            return label_of(short)
    return label_of(name)


def _axis(name: str, given: Any, tree: LocatedYaml, keys: Keys, shown: str) -> Axis:
    steps: tuple[str | int, ...] = ("axes", name)
    where = tree.where(*steps)
    if not given or not isinstance(given, list | Mapping):
        raise UserError(f"{where}axis {name!r} has no values: write a list, such as [4, 8]")
    key = None
    if isinstance(given, Mapping):
        values = [_labelled(label, inner, name, tree, (*steps, label), keys) for label, inner in given.items()]
    else:
        plain = [item for item in given if not isinstance(item, Mapping) and not names_file(item, name)]
        key = keys.find(name, where) if plain else None
        values = [_value(item, name, key, tree, (*steps, index), keys) for index, item in enumerate(given)]
        key = key if len(plain) == len(given) else None
    labels = [value.label for value in values]
    if twice := next((label for index, label in enumerate(labels) if label in labels[:index]), None):
        raise UserError(f"{where}axis {name!r} has the value {twice!r} twice")
    return Axis(name, shown, key, tuple(values))


def _value(item: Any, name: str, key: str | None, tree: LocatedYaml, steps: tuple[str | int, ...], keys: Keys) -> Value:
    where = tree.where(*steps)
    if isinstance(item, Mapping):
        label, inner = next(iter(item.items()), ("", None))
        if len(item) == 1 and isinstance(inner, Mapping) and not keys.is_key(label):
            return _labelled(label, inner, name, tree, (*steps, label), keys)
        settings, files = _settings(item, tree, steps, keys)
        words = [f.stem for f in files] + [f"{k.rpartition('.')[2]}:{label_of(v, k)}" for k, v in settings.items()]
        if not words:
            raise UserError(f"{where}a value of axis {name!r} sets no key")
        return Value("+".join(words), "+".join(words), files, settings)
    if names_file(item, name):
        file = find_file(item, tree.location(*steps), f"axis {name!r}")
        return Value(label_of(file.stem), label_of(file.stem), (file,))
    assert key is not None
    keys.check(key, item, where)
    return Value(label_of(item, key), item, (), {key: item})


def _labelled(label: str, given: Any, name: str, tree: LocatedYaml, steps: tuple[str | int, ...], keys: Keys) -> Value:
    if names_file(given, name):
        return Value(label_of(label), label_of(label), (find_file(given, tree.location(*steps), f"axis {name!r}"),))
    if not isinstance(given, Mapping):
        raise UserError(f"{tree.where(*steps)}{label!r} of axis {name!r} is {given!r}, but must be keys and values")
    settings, files = _settings(given, tree, steps, keys)
    return Value(label_of(label), label_of(label), files, settings)


def _settings(
    given: Mapping[str, Any], tree: LocatedYaml, steps: tuple[str | int, ...], keys: Keys
) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """Return the settings of a mapping of configuration keys, and the files under its key ``config``.

    ``seed_offset`` is added to the seeds of the study, for cells that differ in their seeds.
    """
    settings: dict[str, Any] = {}
    files: tuple[Path, ...] = ()
    for name, value in given.items():
        where = tree.where(*steps, name)
        if name == "config":
            listed = value if isinstance(value, list) else [value]
            files = tuple(find_file(item, tree.location(*steps, name), "config") for item in listed)
            continue
        if name == "seed_offset":
            if type(value) is not int or value < 0:
                raise UserError(f"{where}seed_offset is {value!r}, but must be a whole number from 0 on")
            settings["seed_everything"] = value  # ``Study`` adds the seeds of the study
            continue
        for key, setting in keys.flatten({name: value}, where):
            if key in settings:
                raise UserError(f"{where}{key} is set twice")
            settings[key] = setting
    return settings, files


def parse_zip(tree: LocatedYaml, axes: Sequence[Axis]) -> tuple[tuple[str, ...], ...]:
    """Read the lists of axes that change together.

    Raises:
        UserError: A name is not an axis, an axis is in two lists, a list has one axis, or axes have different lengths.
    """
    given = tree.value.get("zip") or []
    if isinstance(given, list) and given and all(isinstance(name, str) for name in given):
        given = [given]
    by_name = {axis.name: axis for axis in axes}
    seen: set[str] = set()
    for index, group in enumerate(given if isinstance(given, list) else [given]):
        where = tree.where("zip", index)
        if not isinstance(group, list) or len(group) < 2:
            raise UserError(
                f"{where}zip must be a list of lists of two or more axes, such as [[r, alpha]], but has {group!r}"
            )
        for name in group:
            if name not in by_name:
                raise UserError(
                    f"{where}zip has {name!r}, which is not an axis; "
                    f"{the_nearest(nearest(str(name), by_name, 3), 'axis')}"
                )
            if name in seen:
                raise UserError(f"{where}axis {name!r} is in zip twice")
            seen.add(name)
        lengths = {name: len(by_name[name].values) for name in group}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise UserError(f"{where}axes in zip need the same number of values, but {counts}")
    return tuple(map(tuple, given))


def combined(axes: Sequence[Axis], zipped: Sequence[Sequence[str]], where: str = "") -> Iterator[dict[str, Value]]:
    """Yield axis -> value for every combination. The last axis changes fastest; zipped axes change together.

    Raises:
        UserError: There are too many combinations; the message begins with ``where``.
    """
    partners = {name: tuple(group) for group in zipped for name in group}
    groups = list(dict.fromkeys(partners.get(axis.name, (axis.name,)) for axis in axes))
    by_name = {axis.name: axis for axis in axes}
    steps = [list(zip(*(by_name[name].values for name in group), strict=True)) for group in groups]
    if (count := math.prod(map(len, steps))) > MOST_CELLS:
        raise UserError(f"{where}the axes have {count:,} combinations, but a study takes at most {MOST_CELLS:,}")
    for chosen in product(*steps):
        found = {
            name: value
            for group, row in zip(groups, chosen, strict=True)
            for name, value in zip(group, row, strict=True)
        }
        yield {axis.name: found[axis.name] for axis in axes}


def tied(labels: Sequence[Mapping[str, str]], axis: str, other: str) -> bool:
    """Whether two axes change together one to one in cells with these labels, as an axis does with itself."""
    pairs = {(own[axis], own[other]) for own in labels}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})

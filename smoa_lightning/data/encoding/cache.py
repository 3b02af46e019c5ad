"""Encoded rows on disk, under a name made of everything that decides them, so that a second run need not tokenise.

A part (rows of one dataclass and their statistics) is one ``.npz`` file of flat integer arrays: each field of the
dataclass becomes a column, a tuple a column of lengths and one of entries, texts a JSON list. Nothing is pickled, so a
file of this folder can be wrong but not dangerous. The folder may be deleted at any time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import sys
import tempfile
import types
import typing
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from smoa_lightning.common.atomic_files import CACHE, replacing
from smoa_lightning.data.batches.collate import ChoiceItem, ReplyItem
from smoa_lightning.data.encoding.encode import TokenRow
from smoa_lightning.data.encoding.encode_examples import PartStatistics

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS: dict[str, type] = {kind.__name__: kind for kind in (TokenRow, ChoiceItem, ReplyItem)}


def cache_key(**parts: Any) -> str:
    """Return the SHA-256 of everything that decides the encoded rows.

    Args:
        parts: Values that JSON can write, and dataclasses of such. The order does not matter.

    >>> cache_key(a=1, b=[2]) == cache_key(b=(2,), a=1) != cache_key(a=1, b=[3])
    True
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no canonical form for a cache key")


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of what decides a tokenizer's ids: class, vocabulary, rules, special tokens, chat template.

    The padding and truncation of a fast tokenizer's backend are left out: they are those of its last call.
    """
    facts: dict[str, Any] = {
        "class": type(tokenizer).__name__,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "added": {str(number): str(token) for number, token in tokenizer.added_tokens_decoder.items()},
        "template": tokenizer.chat_template,
        "split_special_tokens": getattr(tokenizer, "split_special_tokens", None),
    }
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state = json.loads(backend.to_str())
        facts["backend"] = {name: value for name, value in state.items() if name not in ("padding", "truncation")}
    else:
        with tempfile.TemporaryDirectory() as folder:
            files = tokenizer.save_vocabulary(folder)
            facts["files"] = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files if file]
    return cache_key(**facts)


# ---- a part as a file


def save(folder: Path, key: str, rows: list[Any], statistics: PartStatistics) -> bool:
    """Write the encoded rows of a part and their statistics, whole or not at all; several processes may do so at once.

    Returns:
        Whether they were written. A folder that can not be written to is told in one sentence and stops nothing.
    """
    kind = type(rows[0]) if rows else TokenRow
    header = {"key": key, "kind": kind.__name__, "count": len(rows), "layout": _layout(kind)}
    arrays: dict[str, numpy.ndarray] = {"header": _text(header)}
    _write(kind, rows, "rows", arrays)
    _write(PartStatistics, [statistics], "statistics", arrays)
    try:
        with replacing(folder / f"{key}.npz") as temporary, temporary.open("wb") as stream:
            numpy.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        _say(f"the encoded rows could not be kept in {folder} ({error.strerror or error}); set {CACHE} elsewhere.")
        return False
    return True


def load(folder: Path, key: str) -> tuple[list[Any], PartStatistics] | None:
    """Return what ``save`` wrote under this key, or None where there is nothing.

    A file that is damaged, or not one of these, is told in one sentence and taken for nothing.
    """
    file = folder / f"{key}.npz"
    try:
        with file.open("rb") as stream, numpy.load(stream, allow_pickle=False) as arrays:
            header = json.loads(bytes(arrays["header"]))
            kind = KINDS[header["kind"]]
            if header["key"] != key or header["layout"] != _layout(kind):
                raise ValueError("it was written under another name, or for other fields")
            rows = _read(kind, int(header["count"]), "rows", arrays.__getitem__)
            (statistics,) = _read(PartStatistics, 1, "statistics", arrays.__getitem__)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        _say(f"{file} is damaged or no file of encoded rows ({error}); the rows are encoded anew.")
        return None
    return rows, statistics


def _say(sentence: str) -> None:
    print(f"smoa_lightning: {sentence}", file=sys.stderr)


def _text(value: Any) -> numpy.ndarray:
    return numpy.frombuffer(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"), dtype=numpy.uint8)


def _layout(kind: type) -> dict[str, str]:
    """Return field -> type, those of inner dataclasses spelled out, so that a changed class does not read old files."""
    found = {}
    for name, hint in typing.get_type_hints(kind).items():
        found[name] = str(hint)
        inner = [each for each in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(each)]
        for each in inner:
            found |= {f"{name}.{key}": value for key, value in _layout(each).items()}  # type: ignore[arg-type]
    return found


def _is_text(hint: Any) -> bool:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return set(options) <= {str, type(None)} and str in options


def _write(hint: Any, values: list[Any], name: str, arrays: dict[str, numpy.ndarray]) -> None:
    """Add the columns of values of one type to ``arrays``."""
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        for field in dataclasses.fields(hint):
            _write(hints[field.name], [getattr(value, field.name) for value in values], f"{name}.{field.name}", arrays)
    elif typing.get_origin(hint) in (tuple, list):
        arrays[f"{name}.lengths"] = _integers([len(value) for value in values])
        _write(typing.get_args(hint)[0], [entry for value in values for entry in value], f"{name}.entries", arrays)
    elif hint in (int, bool):
        arrays[name] = _integers(values)
    elif _is_text(hint):
        arrays[name] = _text(values)
    else:
        raise TypeError(f"{name}: values of type {hint} have no column")


def _integers(values: list[int]) -> numpy.ndarray:
    """Return an array of the smallest type that holds the values."""
    array = numpy.array(values, dtype=numpy.int64)
    low, high = (int(array.min()), int(array.max())) if len(array) else (0, 0)
    small = (numpy.iinfo(name) for name in ("uint8", "uint16", "int16", "int32", "int64"))
    return array.astype(next(kind.dtype for kind in small if kind.min <= low and high <= kind.max))


def _read(hint: Any, count: int, name: str, column: Callable[[str], numpy.ndarray]) -> list[Any]:
    """Return ``count`` values of one type from their columns."""
    values: list[Any]
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        names = [field.name for field in dataclasses.fields(hint)]
        columns = [_read(hints[each], count, f"{name}.{each}", column) for each in names]
        make: Any = hint
        values = [make(**dict(zip(names, entries, strict=True))) for entries in zip(*columns, strict=True)]
    elif (sequence := typing.get_origin(hint)) in (tuple, list):
        lengths = column(f"{name}.lengths").tolist()
        entries = _read(typing.get_args(hint)[0], sum(lengths), f"{name}.entries", column)
        ends = numpy.cumsum([0, *lengths]).tolist()
        values = [sequence(entries[start:end]) for start, end in itertools.pairwise(ends)]
    elif _is_text(hint):
        values = json.loads(bytes(column(name)).decode("utf-8", "surrogatepass"))
    else:
        values = column(name).astype(bool).tolist() if hint is bool else column(name).tolist()
    if len(values) != count:
        raise ValueError(f"column {name} has {len(values)} values instead of {count}")
    return values

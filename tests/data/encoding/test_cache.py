"""Encoded rows come back as they were, and nothing that goes wrong on disk stops a run."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from smoa_lightning.common import atomic_files as files
from smoa_lightning.data.batches.collate import ChoiceItem, ReplyItem
from smoa_lightning.data.encoding import cache
from smoa_lightning.data.encoding.encode import IGNORED, TokenRow
from smoa_lightning.data.encoding.encode_examples import Encoding, PartStatistics

from ..conftest import character_tokenizer

ROWS = [
    TokenRow((5, 6, 7), (IGNORED, 6, 7), truncated=True),
    TokenRow((300_000,), (IGNORED,)),
    TokenRow((), ()),
    TokenRow((2**40, 1), (IGNORED, 2**40)),
]
CHOICES = [
    ChoiceItem((ROWS[0], ROWS[1]), (5, 6), label=1, row=10),
    ChoiceItem((ROWS[1], ROWS[0], ROWS[3]), (1, 2, 3), label=0, row=4),
]
REPLIES = [
    ReplyItem(ROWS[0], (5, 6), 3, 'the café’s\n"broom" \0 \U0001f600 \ud800', None),
    ReplyItem(ROWS[1], (), 0, "", "42"),
]
STATISTICS = PartStatistics(4, 1, 2, 0, 17, [3, 1, 4])


@pytest.mark.parametrize("rows", [ROWS, CHOICES, REPLIES, []], ids=["training", "choices", "replies", "none"])
def test_rows_come_back_as_they_were(tmp_path: Path, rows: list) -> None:
    assert cache.load(tmp_path / "new", "key") is None
    assert cache.save(tmp_path / "new", "key", rows, STATISTICS)
    found = cache.load(tmp_path / "new", "key")
    assert found == (rows, STATISTICS)
    assert found[1].as_dict() == STATISTICS.as_dict()
    for one, two in zip(found[0], rows, strict=True):
        assert hash(one) == hash(two)  # tuples, not lists or arrays, all the way down
        assert repr(one) == repr(two)  # True is not 1
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["key.npz"]


def test_the_statistics_can_go_on(tmp_path: Path) -> None:
    cache.save(tmp_path, "key", ROWS, STATISTICS)
    _, found = cache.load(tmp_path, "key")
    found.add(ROWS[0], clean=False)
    assert found.lengths == [3, 1, 4, 3]


def test_a_type_without_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"row\.truncated"):
        cache._write(complex, [1j], "row.truncated", {})


# ---- the key


def test_each_ingredient_changes_the_key() -> None:
    base = {"task": "piqa", "version": 1, "sha256": "ab", "indices": [1, 2], "encoding": Encoding()}
    others = {"task": "boolq", "version": 2, "sha256": None, "indices": [2, 1], "encoding": Encoding(256)}
    keys = {cache.cache_key(**{**base, name: value}) for name, value in others.items()}
    keys |= {cache.cache_key(**base), cache.cache_key(**base, more=1)}
    assert len(keys) == len(others) + 2
    assert cache.cache_key(**dict(reversed(base.items()))) in keys
    for field, value in (("loss_on", "all"), ("overlong", "skip"), ("add_bos", True)):
        assert cache.cache_key(encoding=Encoding(**{field: value})) != cache.cache_key(encoding=Encoding())
    with pytest.raises(TypeError, match="object has no canonical form"):
        cache.cache_key(a=object())
    with pytest.raises(ValueError, match="not JSON compliant"):
        cache.cache_key(a=float("nan"))


def reloaded(tokenizer: PreTrainedTokenizerFast, folder: Path) -> PreTrainedTokenizerFast:
    tokenizer.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def test_a_tokenizer_is_known_by_what_decides_its_ids(tmp_path: Path) -> None:
    digest = cache.tokenizer_digest
    own = digest(character_tokenizer())
    assert own == digest(character_tokenizer())
    assert digest(reloaded(character_tokenizer(), tmp_path)) == digest(reloaded(character_tokenizer(), tmp_path))
    used = character_tokenizer()
    used(["abc", "d"], padding=True, truncation=True, max_length=2)
    assert digest(used) == own
    others = [
        character_tokenizer(adds_bos=True),
        character_tokenizer(with_bos=False),
        character_tokenizer(pad="<eos>"),
        character_tokenizer(),
        character_tokenizer(),
        character_tokenizer(),
    ]
    others[3].add_tokens(["ab"])
    others[4].chat_template = "{{ messages }}"
    state = json.loads(others[5].backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    others[5] = copy.deepcopy(others[5])
    others[5]._tokenizer = others[5].backend_tokenizer.from_str(json.dumps(state))
    assert others[5]("ab").input_ids == character_tokenizer()("ba").input_ids
    assert len({own, *map(digest, others)}) == len(others) + 1


def test_a_tokenizer_in_python_has_a_digest() -> None:
    assert cache.tokenizer_digest(ByT5Tokenizer()) == cache.tokenizer_digest(ByT5Tokenizer())
    assert cache.tokenizer_digest(ByT5Tokenizer()) != cache.tokenizer_digest(ByT5Tokenizer(extra_ids=7))


# ---- where


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SMOA_LIGHTNING_CACHE", raising=False)
    assert files.cache_folder("tokens") == tmp_path / ".cache" / "smoa_lightning" / "tokens"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert files.cache_folder("tokens") == tmp_path / "x" / "smoa_lightning" / "tokens"
    monkeypatch.setenv("SMOA_LIGHTNING_CACHE", "~/mine")
    assert files.cache_folder("tokens") == tmp_path / "mine" / "tokens"


# ---- what goes wrong


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    place = data.index(b"rows.ids.entries.npy") + 60
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


@pytest.mark.parametrize(
    "damage", [cut, flip, lambda data: b"", lambda data: b"no archive", lambda data: b"\x80\x04K\x01."]
)
def test_a_damaged_file_is_told_and_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: object
) -> None:
    cache.save(tmp_path, "key", ROWS, STATISTICS)
    file = tmp_path / "key.npz"
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    assert cache.load(tmp_path, "key") is None
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{file} is damaged or no file of encoded rows" in said
    assert cache.save(tmp_path, "key", ROWS, STATISTICS)
    assert cache.load(tmp_path, "key") == (ROWS, STATISTICS)
    assert capsys.readouterr().err == ""


def test_a_foreign_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numpy.savez(tmp_path / "foreign.npz", a=numpy.zeros(3))
    assert cache.load(tmp_path, "foreign") is None
    assert "foreign.npz is damaged or no file of encoded rows" in capsys.readouterr().err
    numpy.savez(tmp_path / "objects.npz", header=numpy.array([{"a": 1}]))  # pickled: never opened
    assert cache.load(tmp_path, "objects") is None
    assert "allow_pickle=False" in capsys.readouterr().err


def test_a_file_of_another_key_or_other_fields_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.save(tmp_path, "key", ROWS, STATISTICS)
    (tmp_path / "key.npz").rename(tmp_path / "other.npz")
    assert cache.load(tmp_path, "other") is None
    assert "written under another name" in capsys.readouterr().err
    cache.save(tmp_path, "key", CHOICES, STATISTICS)
    monkeypatch.setitem(TokenRow.__annotations__, "ids", "tuple[str, ...]")
    assert cache.load(tmp_path, "key") is None
    assert "for other fields" in capsys.readouterr().err


def test_a_folder_that_can_not_be_written_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert not cache.save(tmp_path / "file" / "tokens", "key", ROWS, STATISTICS)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "could not be kept" in said
    assert "SMOA_LIGHTNING_CACHE" in said
    assert cache.load(tmp_path / "file" / "tokens", "key") is None


def test_two_processes_at_once_have_one_key(tmp_path: Path) -> None:
    """The other one hashes texts otherwise; this one writes and reads until the other has ended."""
    key = cache.cache_key(a=[1, 2.5, True], b={"x": "ß", "a": None})
    code = f"""
from pathlib import Path
from smoa_lightning.data.encoding import cache
from smoa_lightning.data.encoding.encode import TokenRow
from smoa_lightning.data.encoding.encode_examples import PartStatistics
folder, rows = Path({str(tmp_path)!r}), [TokenRow(tuple(range(n)), tuple(range(n))) for n in range(200)]
key = cache.cache_key(b={{'x': 'ß', 'a': None}}, a=[1, 2.5, True])
for _ in range(20):
    assert cache.save(folder, key, rows, PartStatistics())
    assert cache.load(folder, key) == (rows, PartStatistics())
print(key)
"""
    rows = [TokenRow(tuple(range(n)), tuple(range(n))) for n in range(200)]
    command, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONHASHSEED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as other:
        while other.poll() is None:
            assert cache.save(tmp_path, key, rows, PartStatistics())
            assert cache.load(tmp_path, key) == (rows, PartStatistics())
            time.sleep(0.005)  # on one core the other one is to come to its turn
        assert (other.communicate(), other.returncode) == ((f"{key}\n", ""), 0)
    assert [file.name for file in tmp_path.iterdir()] == [f"{key}.npz"]

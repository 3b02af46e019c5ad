"""Encoded rows are found again by their content: what a second data module need not encode, and what it must."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.encoding import encoding_job

from ..conftest import character_tokenizer

PARTS = ("train", "selection", "report")
ENCODERS = ("encode_training", "encode_choices", "encode_replies")


@pytest.fixture
def folder(tmp_path: Path, rows: list[dict], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMOA_LIGHTNING_CACHE", str(tmp_path / "cache"))
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:11]))
    return tmp_path


def make(folder: Path, **settings) -> TaskDataModule:
    data = TaskDataModule(source="local", path=str(folder), **{"selection_rows": 9, **settings})
    data.tokenizer = character_tokenizer()
    return data


def everything(data: TaskDataModule) -> tuple:
    data.setup("fit"), data.setup("test")
    rows = data.sets.trained["piqa"]
    return {part: list(rows.items(part)) for part in PARTS}, data.summary()


class Encoded(Exception):
    """Rows were encoded."""


def forbid_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args):
        raise Encoded

    for name in ENCODERS:
        monkeypatch.setattr(encoding_job, name, refuse)


@pytest.mark.parametrize("settings", [{}, {"num_fewshot": 2}, {"protocol": "generation"}], ids=str)
def test_a_second_data_module_reads_the_cache(folder: Path, settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = everything(make(folder, **settings))
    assert len(list((folder / "cache" / "tokens").glob("*.arrow"))) == 3
    assert expected == everything(make(folder, cache=False, **settings))
    forbid_encoding(monkeypatch)
    assert everything(make(folder, **settings)) == expected
    with pytest.raises(Encoded):
        everything(make(folder, cache=False, **settings))


@pytest.mark.parametrize(
    "settings",
    [{"max_length": 300}, {"loss_on": "all"}, {"add_bos": True}, {"limit_train_rows": 20}, {"selection_rows": 8}],
    ids=str,
)
def test_different_settings_are_encoded_again(folder: Path, settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(make(folder))
    forbid_encoding(monkeypatch)
    with pytest.raises(Encoded):
        everything(make(folder, **settings))


def test_different_rows_are_encoded_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(make(folder))
    file = folder / "dev.jsonl"
    forbid_encoding(monkeypatch)
    file.rename(folder / "validation.jsonl")
    everything(make(folder))  # it is the rows that count, not the file
    (folder / "validation.jsonl").write_text((folder / "validation.jsonl").read_text().replace("use 3", "use 4"))
    data = make(folder)
    data.setup("fit")
    with pytest.raises(Encoded):
        data.setup("test")


def test_shots_belong_to_scored_rows_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(make(folder))
    forbid_encoding(monkeypatch)
    data = make(folder, num_fewshot=1)
    data.sets.trained["piqa"].items("train")
    with pytest.raises(Encoded):
        data.sets.trained["piqa"].items("selection")


def test_a_different_text_of_a_row_is_encoded_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task may be defined outside of this package, so that its code is not in the key."""
    everything(make(folder))
    data = make(folder)
    protocol = data.sets.trained["piqa"].protocol
    example = protocol.example
    changed = dataclasses.replace(protocol, example=lambda row: example({**row, "goal": row["goal"].replace("7", "8")}))
    data.sets.trained["piqa"].protocol = changed
    forbid_encoding(monkeypatch)
    everything(make(folder))
    with pytest.raises(Encoded):
        data.setup("fit")


def test_rows_are_encoded_again_after_a_change_of_the_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(make(folder))
    forbid_encoding(monkeypatch)
    monkeypatch.setattr(encoding_job, "code_digest", lambda: "another version of the code")
    with pytest.raises(Encoded):
        everything(make(folder))

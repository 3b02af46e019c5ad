"""Signatures, folders and files that are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smoa_lightning.common.atomic_files import replacing, write_json
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import read_record, run_folder, signature

CONFIG = {
    "seed_everything": 0,
    "model": {"adapter": {"init_args": {"r": 8}}, "warmup": 0.06},
    "data": {"task": "piqa", "num_workers": 0},
    "trainer": {"max_epochs": 3, "enable_progress_bar": True},
    "run": {"root": "runs"},
}


def changed(path: str, value: object) -> dict:
    config = json.loads(json.dumps(CONFIG))
    *parents, last = path.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "same"),
    [
        ("run.root", "elsewhere", True),
        ("data.num_workers", 2, True),
        ("trainer.enable_progress_bar", False, True),
        ("trainer.max_epochs", 4, False),
        ("trainer.callbacks", [{"class_path": "EarlyStopping"}], False),  # it decides when training ends
        ("model.adapter.init_args.r", 16, False),
        ("seed_everything", 1, False),
    ],
)
def test_signature_follows_content_only(path: str, value: object, same: bool) -> None:
    assert (signature(changed(path, value), {}) == signature(CONFIG, {})) is same


def test_signature_distinguishes_the_sources_of_auto() -> None:
    assert signature(CONFIG, {"data": "hub"}) != signature(CONFIG, {"data": "embedded"})


def record(folder: Path, status: str, run_signature: str = "s") -> Path:
    write_json(folder / "record.json", {"name": "n", "status": status, "signature": run_signature})
    return folder


def test_versions(tmp_path: Path) -> None:
    assert run_folder(tmp_path / "a", "s", exact=False).path.name == "version_0"
    record(tmp_path / "a" / "version_0", "finished")
    record(tmp_path / "a" / "version_1", "failed", "other")
    record(tmp_path / "a" / "version_9", "finished")
    assert run_folder(tmp_path / "a", "s", exact=False).path.name == "version_10"
    record(tmp_path / "a" / "version_10", "running")
    found = run_folder(tmp_path / "a", "s", exact=False)
    assert (found.path.name, found.resume) == ("version_10", True)


def test_exact_folder(tmp_path: Path) -> None:
    assert run_folder(tmp_path / "x", "s", exact=True) == run_folder(tmp_path / "x", "s", exact=True)
    record(tmp_path / "x", "stopped")
    assert run_folder(tmp_path / "x", "s", exact=True).resume
    record(tmp_path / "x", "finished")
    assert run_folder(tmp_path / "x", "s", exact=True).path.name == "x-v2"
    with pytest.raises(UserError, match="a different experiment"):
        run_folder(tmp_path / "x", "t", exact=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds no run"):
        run_folder(tmp_path / "mine", "s", exact=True)


def test_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"status": ')
    with pytest.raises(UserError, match=r"record\.json is damaged"):
        read_record(tmp_path)


@pytest.mark.parametrize("folder", [False, True])
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "out"

    def write(path: Path, text: str) -> None:
        if folder:
            path.mkdir()
            path = path / "file"
        path.write_text(text)

    def read() -> str:
        return (target / "file" if folder else target).read_text()

    for text in ("one", "two"):
        with replacing(target) as temporary:
            write(temporary, text)
        assert read() == text
    with pytest.raises(FileNotFoundError), replacing(target):
        pass  # nothing was written, so there is nothing to put in the place of what is there
    assert read() == "two"
    with pytest.raises(RuntimeError), replacing(target) as temporary:  # noqa: PT012  the write is what is broken off
        write(temporary, "three")
        raise RuntimeError
    assert read() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("nothing", [None, []])
def test_an_empty_new_setting_keeps_the_signature_of_earlier_versions(nothing: object) -> None:
    earlier = {"model": {"backbone": {"name": "a/b"}}}
    same = {"model": {"backbone": {"name": "a/b", "allow_missing": nothing}}}
    assert signature(same, {}) == signature(earlier, {})
    assert signature({"model": {"backbone": {"name": "a/b", "allow_missing": ["x"]}}}, {}) != signature(earlier, {})

"""Records and item scores carry checksums: each changed byte is found, and files of earlier versions still load."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.common.atomic_files import write_json, write_jsonl
from smoa_lightning.common.checksums import SEAL, read_sealed, sealed, sha256, write_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.items import read_items, read_right
from smoa_lightning.records.record import check_files, read_record, run_folder

RECORD = {
    "name": "piqa-smoa-é",
    "signature": "0123456789abcdef",
    "status": "finished",
    "metrics": {"report/acc": 0.1 + 0.2, "report/nll": float("nan"), "cost/steps": 3},
    "config": {"data": {"path": None, "task": "piqa"}, "trainer": {"max_epochs": 1}},
}


def flipped(file: Path, count: int = 50) -> Iterator[int]:
    """Change one byte of a file at a time; at the end the file is as it was."""
    content = file.read_bytes()
    for place in random.Random(0).sample(range(len(content)), min(count, len(content))):
        for bit in (0x01, 0x10, 0x80):
            file.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            yield place
    file.write_bytes(content)


def test_each_changed_byte_of_a_record_is_found_or_harmless(tmp_path: Path) -> None:
    """Harmless: white space between entries, and the name of the checksum, without which the rest is as it was."""
    write_sealed(tmp_path / "record.json", RECORD)
    expected = json.dumps(read_record(tmp_path))
    messages = []
    for _ in flipped(tmp_path / "record.json"):
        try:
            record = read_record(tmp_path)
        except UserError as error:
            messages.append(str(error))
        else:
            assert record is not None
            assert json.dumps({key: record[key] for key in RECORD}) == expected
    assert len(messages) > 100
    assert all("record.json is damaged (" in message and "\n" not in message for message in messages)


def test_each_changed_byte_of_the_items_is_found(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    write_jsonl(file, [{"row": row, "label": row % 2, "prediction_acc": 1} for row in range(20)])
    checksum = sha256(file)
    assert sum(read_right(file, "acc", checksum).values()) == 10
    for _ in flipped(file):
        with pytest.raises(UserError, match=r"items.jsonl is damaged \(its checksum is wrong\): restore the file"):
            read_right(file, "acc", checksum)
        with pytest.raises(UserError, match=r"items.jsonl is damaged or was changed: restore it"):
            check_files(tmp_path, {"files": {file.name: checksum}})
    check_files(tmp_path, {"files": {file.name: checksum}})
    file.unlink()
    with pytest.raises(UserError, match=r"items.jsonl is missing: restore it"):
        check_files(tmp_path, {"files": {file.name: checksum}})


@pytest.mark.parametrize("content", ["[]", '{"row": 1', "7\n", '{"label": 0}', "\0" * 9])
def test_items_that_are_none_are_refused_in_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"^.*items.jsonl is damaged \(.*\): restore the file$"):
        read_right(tmp_path / "items.jsonl", "acc")


CHOICE = {"row": 0, "label": 1, "log_likelihood": [-1.0, -2.0], "prediction_acc": 0}
REPLY = {"row": 0, "nll": 2.0, "tokens": 3, "reference": "a", "reply": "b"}


@pytest.mark.parametrize(
    ("line", "changes", "fault"),
    [
        (CHOICE, {"label": None}, "line 2: it has no 'label'"),
        (CHOICE, {"row": True}, "line 2: 'row' is True and not a whole number from 0"),
        (CHOICE, {"row": 0}, "line 2: row 0 is there twice"),
        (CHOICE, {"prediction_acc": "1"}, "line 2: 'prediction_acc' is '1' and not a whole number from 0"),
        (CHOICE, {"log_likelihood": [-1.0, "x"]}, "line 2: 'log_likelihood' is .* and not a list of numbers"),
        (REPLY, {"tokens": 0}, "line 2: 'tokens' is 0 and not a whole number from 1"),
        (REPLY, {"tokens": None}, "line 2: it has no 'tokens'"),
        (REPLY, {"nll": "2"}, "line 2: 'nll' is '2' and not a number"),
        (REPLY, {"reply": 7}, "line 2: 'reply' is 7 and not a text"),
    ],
)
def test_a_line_with_a_missing_or_wrong_field_is_named(
    line: dict[str, Any], changes: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    file = tmp_path / "items.jsonl"
    good = [line | {"row": row} for row in range(2)]
    write_jsonl(file, good)
    assert len(read_items(file)) == 2
    bad = {key: value for key, value in (good[1] | changes).items() if value is not None}
    write_jsonl(file, [good[0], bad])
    with pytest.raises(UserError, match=rf"^.*items.jsonl is damaged \({fault}\): restore the file$"):
        read_items(file)


def test_files_of_earlier_versions_load(tmp_path: Path) -> None:
    write_json(tmp_path / "record.json", RECORD)
    record = read_record(tmp_path)
    assert record is not None
    assert record["name"] == RECORD["name"]
    check_files(tmp_path, record)
    assert SEAL not in record


def test_lines_of_another_kind_are_refused_although_their_checksum_is_right(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"label": 1}\n')
    with pytest.raises(UserError, match=r"items.jsonl is damaged \('row'\): restore the file"):
        read_right(file, "acc", sha256(file))


def test_a_checksum_does_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "other.json", dict(reversed(sealed(RECORD).items())))
    assert read_sealed(tmp_path / "other.json") is not None
    assert read_sealed(tmp_path / "none.json") is None


@pytest.mark.parametrize("content", ["", "[]", "null", "{", "\0\0", "[" * 100_000, '{"status": "finished"}', "\udcff"])
def test_other_content_is_refused_in_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"^.*record.json is damaged \(.*\): move the folder away or restore the file$"):
        read_record(tmp_path)


def _cut(file: Path) -> None:
    file.write_text(file.read_text()[:40])


def _edited(file: Path) -> None:
    file.write_text(file.read_text().replace("running", "stopped"))


def _zeros(file: Path) -> None:
    file.write_bytes(b"\0" * 500)


@pytest.mark.parametrize("damage", [_cut, _edited, _zeros])
@pytest.mark.usefixtures("shown_notes")
def test_a_damaged_record_among_old_versions_does_not_block_a_new_run(
    damage: Callable[[Path], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = RECORD | {"status": "running"}
    for number in range(3):
        write_sealed(tmp_path / f"version_{number}" / "record.json", running)
    damage(tmp_path / "version_2" / "record.json")
    found = run_folder(tmp_path, RECORD["signature"], exact=False)  # type: ignore[arg-type]
    assert (found.path.name, found.resume) == ("version_1", True)
    new = run_folder(tmp_path, "another", exact=False)
    assert (new.path.name, new.resume) == ("version_3", False)
    assert capsys.readouterr().err.count("version_2/record.json is damaged") == 2
    with pytest.raises(UserError, match="is damaged"):  # nobody may write into a folder whose content is unknown
        run_folder(tmp_path / "version_2", "another", exact=True)

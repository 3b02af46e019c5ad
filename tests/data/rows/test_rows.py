"""Every task over a folder of rows: read, checked, held out, encoded; a damaged row is named by file, row and field."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from smoa_lightning import embedded
from smoa_lightning.__main__ import main
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.encoding.encode import move_spaces
from smoa_lightning.data.encoding.items import IGNORED
from smoa_lightning.data.tasks import IMAGES, TASKS, Missing
from smoa_lightning.data.tasks.label_fields import Number

from ..made_rows import ROWS, write_folder


def test_there_are_rows_for_every_task():
    assert set(ROWS) == set(TASKS)
    assert min(map(len, ROWS.values())) >= 24


CASES = [(task.name, protocol.name) for task in TASKS.values() for protocol in task.protocols]


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_a_folder_of_rows(name: str, protocol: str, tmp_path: Path, byte_tokenizer, recwarn) -> None:
    task = TASKS[name]
    write_folder(tmp_path, name)
    names = {"class_names": list("abcdefgh")} if name == "image_classification" else {}
    data = TaskDataModule(name, "local", path=str(tmp_path), batch_size=4, protocol=protocol, max_length=2000, **names)
    reads_images = task in IMAGES
    data.processor = ViTImageProcessorPil(size={"height": 4, "width": 4}) if reads_images else byte_tokenizer
    data.setup("fit")
    data.setup("test")
    summary = data.summary()
    rows = data.rows("train")
    assert summary["train"]["rows"] + summary["selection"]["rows"] == len(rows) >= 18
    assert 1 <= summary["selection"]["rows"] <= 4
    assert summary["train_report_overlap"] == 0
    assert not any(summary["bad_rows"].values())
    assert task.report_split in data.provenance["splits"]

    train, selection = data.indices("train"), data.indices("selection")
    assert not {*rows.groups[train]} & {*rows.groups[selection]}
    encoded = data.sets.training_items()[0]
    example = task.protocol(protocol).example
    batch = next(iter(data.test_dataloader()))
    reported = [example(data.rows(task.report_split)[row]) for row in batch["row"].tolist()]
    if protocol in ("classification", "regression"):
        first = example(rows[train[0]])
        assert batch["labels"].tolist() == pytest.approx([item.label for item in reported])
        assert not recwarn.list
        if reads_images:
            assert batch["pixel_values"].shape == (len(reported), 3, 4, 4)
            assert encoded.label == first.label
            return
        assert byte_tokenizer.decode(encoded.ids) == "\n".join(first.texts)
        assert encoded.label == first.label
        return
    # what is trained on is the right answer after its own prompt, byte by byte, and EOS
    prompt, answer = move_spaces(*example(rows[train[0]]).target, breaks=protocol == "likelihood")
    whole = byte_tokenizer(prompt + answer).input_ids
    assert list(encoded.ids) == [*whole, byte_tokenizer.eos_token_id]
    assert [label for label in encoded.labels if label != IGNORED] == [
        *whole[len(byte_tokenizer(prompt).input_ids) :],
        byte_tokenizer.eos_token_id,
    ]

    if protocol == "generation":
        assert batch["response"] == [item.response.strip() for item in reported]
        assert batch["answer"] == [item.answer for item in reported]
        assert [byte_tokenizer.decode(ids) for ids in batch["prompt"]] == [item.prompt.rstrip(" ") for item in reported]
    else:
        assert batch["num_choices"].tolist() == [len(item.choices) for item in reported]
        assert len(batch["input_ids"]) == sum(len(item.choices) for item in reported)
    assert not recwarn.list


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("damage", ["missing", "null", "number"])
def test_each_field_of_each_task(name: str, damage: str, tmp_path: Path) -> None:
    for field, kind in TASKS[name].schema.items():
        if isinstance(kind, Missing):  # may be left out, and then holds what its task says
            continue
        rows = [json.loads(json.dumps(row)) for row in ROWS[name][:3]]
        if damage == "missing":
            del rows[1][field]
        else:
            number = True if isinstance(kind, Number) else 0.5  # what is no number where one is right
            rows[1][field] = None if damage == "null" else number
        file = tmp_path / "train.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        names = {"class_names": list("abcdefgh")} if name == "image_classification" else {}
        data = TaskDataModule(name, "local", path=str(file), **names)
        with pytest.raises(UserError, match=rf"{re.escape(str(file))}, row 2: field '{field}' ") as caught:
            data.rows("train")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(name for name in TASKS if TASKS[name].hub_repository))
def test_no_embedded_rows_is_one_sentence(name: str, tmp_path: Path, monkeypatch) -> None:
    """No hub, nothing in its cache and nothing shipped: an error, never rows of another task."""
    monkeypatch.setattr(embedded, "TASKS", ())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"^the hub is switched off .* cache does not hold the dataset .*[^\n]*$"):
        TaskDataModule(name, "auto").resolve()
    with pytest.raises(UserError, match="no embedded dataset is shipped for this; use source hub or local"):
        TaskDataModule(name, "embedded").resolve()


@pytest.mark.parametrize("name", sorted(name for name in TASKS if not TASKS[name].hub_repository))
@pytest.mark.parametrize("source", ["auto", "hub"])
def test_tasks_for_your_own_rows_have_no_fallback(name: str, source: str) -> None:
    with pytest.raises(UserError, match=r"has none on the hub; set data.source: local and data.path"):
        TaskDataModule(name, source).resolve()


@pytest.mark.parametrize("name", sorted(name for name in TASKS if not TASKS[name].hub_repository))
def test_experiments_for_your_own_rows_need_them(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without rows, ``fit --config choice`` is refused and does not train on generated rows."""
    file = f"images/{name}" if TASKS[name] in IMAGES else name
    assert main(["fit", "--config", file, "--model.backbone.source", "embedded", "--data.source", "auto"]) == 2
    assert "set data.source: local and data.path: FILE or FOLDER" in capsys.readouterr().err

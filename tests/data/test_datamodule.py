from __future__ import annotations

import json
from pathlib import Path

import pytest

from smoa_lightning import embedded
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.encoding.encode_examples import Encoding, encode_choices, encode_training
from smoa_lightning.data.encoding.items import IGNORED
from smoa_lightning.data.rows import task_rows
from smoa_lightning.data.tasks import ChoiceExample

from .conftest import character_tokenizer


@pytest.fixture
def folder(tmp_path, rows):
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = [{**row, "goal": "other " + row["goal"]} for row in rows[:11]]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other))
    return tmp_path


def make(folder, **kwargs):
    folder = str(folder) if isinstance(folder, Path) else folder
    data = TaskDataModule(**{"source": "local", "path": folder, "batch_size": 4, "selection_rows": 9, **kwargs})
    data.tokenizer = character_tokenizer()
    return data


def test_parts(folder):
    data = make(folder)
    data.setup("fit")
    data.setup("test")
    train, selection, report = (set(data.indices(part)) for part in ("train", "selection", "report"))
    assert (len(train), len(selection), len(report)) == (51, 9, 11)
    assert not train & selection
    goals = {part: {data.example(part, row).prompt for row in data.indices(part)} for part in ("train", "selection")}
    assert not goals["train"] & goals["selection"]


def test_training_batches(folder):
    data = make(folder)
    data.setup("fit")
    tokenizer = data.tokenizer
    batches = list(data.train_dataloader())
    assert sum(len(batch["input_ids"]) for batch in batches) == 51
    texts = set()
    for batch in batches:
        assert set(batch) == {"input_ids", "attention_mask", "labels"}
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            text = ids[mask.bool()].tolist()
            assert text[-1] == tokenizer.eos_token_id
            texts.add("".join(tokenizer.convert_ids_to_tokens(text[:-1])))
            response = "".join(tokenizer.convert_ids_to_tokens(labels[labels != IGNORED][:-1].tolist()))
            assert response.startswith(" use ")
    expected = {
        prompt + response for prompt, response in (data.example("train", i).target for i in data.indices("train"))
    }
    assert texts == expected


def test_choice_batches(folder):
    data = make(folder, eval_batch_size=4)
    data.setup("test")
    batches = list(data.test_dataloader())
    assert [len(batch["label"]) for batch in batches] == [4, 4, 3]
    assert sorted(row for batch in batches for row in batch["row"].tolist()) == list(range(11))
    widths = [batch["input_ids"].shape[1] for batch in batches]
    assert widths == sorted(widths, reverse=True)
    for batch in batches:
        start = 0
        for row, label, count in zip(
            batch["row"].tolist(), batch["label"].tolist(), batch["num_choices"].tolist(), strict=True
        ):
            example = data.example("report", row)
            assert label == example.label
            assert batch["num_bytes"][start : start + count].tolist() == example.num_bytes
            for choice, labels in zip(example.choices, batch["labels"][start : start + count], strict=True):
                tokens = data.tokenizer.convert_ids_to_tokens(labels[labels != IGNORED].tolist())
                assert "".join(tokens) == choice
            start += count


def test_selection_is_of_the_training_rows_and_stays_under_a_limit(folder):
    data, limited = make(folder), make(folder, limit_train_rows=7)
    assert limited.indices("selection") == data.indices("selection")
    assert set(limited.indices("train")) < set(data.indices("train"))
    assert len(limited.indices("train")) == 7
    assert make(folder, seed=1).indices("selection") != data.indices("selection")


def test_no_selection_rows(folder):
    data = make(folder, selection_rows=0)
    data.setup("fit")
    assert data.val_dataloader() == []
    assert data.indices("train") == list(range(60))


def test_only_what_a_stage_needs_is_read(folder):
    (folder / "dev.jsonl").unlink()
    data = make(folder)
    data.setup("fit")
    data.setup("validate")
    with pytest.raises(UserError, match="no file for split 'validation'"):
        _ = data.has_report
    with pytest.raises(UserError, match=r"no file for split 'validation' \(such as validation.jsonl\)"):
        data.setup("test")


def test_a_single_file_holds_training_rows(folder):
    data = make(folder / "train.jsonl")
    data.setup("fit")
    assert not data.has_report
    with pytest.raises(UserError, match="holds training rows alone, so there is no split 'validation'"):
        data.setup("test")


def test_a_file_for_each_split(folder):
    data = make({"train": str(folder / "train.jsonl"), "validation": str(folder / "dev.jsonl")})
    data.setup("predict")
    assert data.has_report
    assert len(data.rows("validation")) == 11
    with pytest.raises(UserError, match="no file for split 'test'; the splits with files are train, validation"):
        data.rows("test")


def test_two_files_for_one_split(folder):
    (folder / "train.csv").write_text("x")
    with pytest.raises(UserError, match="split 'train' is ambiguous"):
        make(folder).setup("fit")


def test_summary_and_provenance(folder):
    data = make(folder, max_length=30, overlong="skip")
    data.setup("fit")
    data.setup("test")
    summary = data.summary()
    assert summary["train"]["rows"] + summary["train"]["skipped_overlong"] == 51
    assert summary["train"]["share_truncated"] > 0
    assert summary["train"]["length_max"] <= 30
    assert summary["report"]["sequences"] == 22
    assert summary["train"]["prefix_mismatches"] == summary["train_report_overlap"] == 0
    labels = [batch["labels"] for batch in data.train_dataloader()]
    assert summary["train"]["target_tokens"] == sum(int((label != IGNORED).sum()) for label in labels)
    provenance = json.loads(json.dumps(data.provenance))
    assert provenance["source"] == "local"
    assert provenance["splits"]["train"]["num_rows"] == 60
    assert len(provenance["splits"]["validation"]["sha256"]) == 64


def test_rows_that_do_not_fit(folder):
    with pytest.raises(UserError, match=r"piqa train, row \d+: the response has .*raise data.max_length"):
        make(folder, max_length=10).setup("fit")
    with pytest.raises(UserError, match=r"all 51 train rows are longer than data.max_length"):
        make(folder, max_length=5, overlong="skip").setup("fit")


def test_embedded_source(monkeypatch, rows):
    monkeypatch.setattr(embedded, "rows", lambda task, split: [dict(row) for row in rows])
    data = make(None, source="embedded", path=None)
    assert data.resolve() == "embedded"
    assert data.has_report
    data.setup("fit")
    assert data.provenance["splits"]["train"]["location"] == "embedded piqa/train"


def test_shipped_rows_fit_the_schema():
    data = TaskDataModule(source="embedded")
    for split in data.task.splits:
        assert len(data.rows(split)) > 100


def test_auto_falls_back_when_the_hub_is_off(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("smoa_lightning.backbones.hub.cached_snapshot", lambda *args: None)
    assert TaskDataModule().resolve() == "embedded"
    with pytest.raises(UserError, match=r"switched off by HF_HUB_OFFLINE and its cache does not hold"):
        TaskDataModule(source="hub").resolve()


def test_the_source_is_resolved_once(monkeypatch):
    calls = []
    monkeypatch.setattr(task_rows, "resolve_source", lambda *args, **kwargs: calls.append(args) or "embedded")
    data = TaskDataModule()
    assert data.resolve() == data.resolve() == "embedded"
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"task": "pika"}, "did you mean piqa"),
        ({"source": "hubb"}, "unknown source 'hubb'; the sources are auto, hub"),
        ({"path": "x"}, "data.path is set, but data.source is 'auto'"),
        ({"report_split": "train"}, "is trained on"),
        ({"report_split": "dev"}, "has no split 'dev'"),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"selection_rows": -1}, "data.selection_rows is -1, but must be at least 0"),
        ({"max_length": 1}, "data.max_length is 1"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(UserError, match=message):
        TaskDataModule(**kwargs)


def test_paths_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="source local needs a file or a folder"):
        TaskDataModule(source="local").resolve()
    with pytest.raises(UserError, match="does not exist"):
        TaskDataModule(source="local", path=str(tmp_path / "none")).resolve()
    with pytest.raises(UserError, match="it holds no data file"):
        TaskDataModule(source="local", path=str(tmp_path)).rows("train")


def test_too_many_selection_rows(folder):
    with pytest.raises(UserError, match=r"is 60, but there are 60 training rows: at most 57 can be held out, since"):
        make(folder, selection_rows=60).setup("fit")


def test_unlabelled_test_rows(folder, rows):
    (folder / "test.jsonl").write_text(json.dumps({**rows[0], "label": -1}) + "\n")
    with pytest.raises(UserError, match=r"test.jsonl, row 1: field 'label' is -1.*without a public label"):
        make(folder, report_split="test").setup("test")


def test_merges_over_the_border_are_counted(merging_tokenizer):
    examples = [ChoiceExample("ab", ("a", "ca"), 1), ChoiceExample("a", ("a", "x"), 0)]
    items, counts = encode_choices(examples, [0, 1], str, merging_tokenizer, Encoding())
    assert len(items) == 2
    assert counts.as_dict()["prefix_mismatches"] == 1
    assert encode_training(examples, str, merging_tokenizer, Encoding())[1].num_prefix_mismatches == 1
    with pytest.raises(UserError, match="row 1: the response has no token of its own"):
        encode_choices(
            [ChoiceExample("ab", ("c", "a"), 0)], [0], lambda i: f"row {i + 1}", merging_tokenizer, Encoding()
        )

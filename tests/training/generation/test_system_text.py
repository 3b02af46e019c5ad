"""The system text that all training rows share is in the adapter folder, and ``generate`` uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from smoa_lightning.__main__ import main
from smoa_lightning.data.encoding.encoded_task import EncodedTask
from smoa_lightning.data.encoding.encoding_job import EncodingJob
from smoa_lightning.data.encoding.system_text import shared_system_text
from smoa_lightning.data.rows.row_table import RowTable
from smoa_lightning.data.rows.task_rows import RowSettings
from smoa_lightning.data.tasks import CHAT, PIQA
from smoa_lightning.training.adapter_folder import read_adapter_facts
from smoa_lightning.training.generation.speaker import open_speakers
from tests.conftest import EXPERIMENTS
from tests.runs import only_run


def row(number: int, *system: str) -> dict[str, Any]:
    said = [("user", f"Question {number}?"), ("assistant", "Yes."), ("user", "Sure?"), ("assistant", "No.")]
    turns = [*(("system", text) for text in system), *said]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(n, "Be brief. ") for n in range(4)], "Be brief."),
        ([*(row(n, "Be brief.") for n in range(3)), row(3, "Be long.")], None),
        ([*(row(n, "Be brief.") for n in range(3)), row(3)], None),
        ([row(n, "Be brief.", "Be kind.") for n in range(3)], None),
        ([row(n) for n in range(3)], None),
        ([row(n) | {"system": "From a column"} for n in range(3)], "From a column"),
    ],
)
def test_only_a_text_of_all_rows_counts(
    rows: list[dict[str, Any]],
    expected: str | None,
    tmp_path: Path,
    byte_tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = written(tmp_path, rows)
    settings = RowSettings(source="local", path=str(file), selection_rows=0)
    assert CHAT.generation is not None
    tasks = [EncodedTask(CHAT, CHAT.generation, settings) for _ in range(2)]
    for task in tasks:
        task.processor = byte_tokenizer
    task, again = tasks
    task.items("train")
    with monkeypatch.context() as patch:
        patch.setattr(EncodingJob, "_encode", None)
        again.items("train")  # from the cache on disk
        patch.setattr(RowTable, "item", None)  # nothing is read once rows are encoded
        assert shared_system_text([again]) == expected
    assert shared_system_text([task]) == expected
    assert shared_system_text([task, again]) == expected
    assert PIQA.likelihood is not None
    choices = EncodedTask(PIQA, PIQA.likelihood, RowSettings(source="embedded", limit_train_rows=4))
    choices.processor = byte_tokenizer
    assert shared_system_text([task, choices]) is None


def test_a_run_saves_the_text(lively: Path, tmp_path: Path) -> None:
    file = written(tmp_path, [row(n, "Be brief.") for n in range(12)])
    status = main(
        [
            *("fit", "--config", str(EXPERIMENTS / "chat.yaml"), "--run.root", str(tmp_path / "runs")),
            *("--config", str(EXPERIMENTS / "adapters" / "lora.yaml"), "--model.backbone.source", "local"),
            *("--model.backbone.path", str(lively), "--data.source", "local", "--data.path", str(file)),
            *("--data.selection_rows", "2", "--data.batch_size", "4", "--trainer.max_steps", "2"),
            *("--run.score_base", "false", "--run.score_report", "false", "--trainer.accelerator", "cpu"),
            *("--trainer.enable_progress_bar", "false"),
        ]
    )
    assert status == 0
    run = only_run(tmp_path / "runs")
    for which in ("best", "last"):
        facts = read_adapter_facts(run / "adapter" / which)
        assert (facts["system"], facts["chat_template"]) == ("Be brief.", True)
    (speaker,) = open_speakers(run)
    assert speaker.encoder.system == "Be brief."

"""The phone book and ``data.selection: trained_rows``: which rows are scored, the bits, and the labels."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from smoa_lightning import TaskDataModule
from smoa_lightning.__main__ import main
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.tasks import PHONE_BOOK, RowError
from smoa_lightning.embedded import rows
from smoa_lightning.records.selection import selection_note
from smoa_lightning.training.adapter_folder import load_adapter

EXPERIMENT = Path(__file__).parents[3] / "experiments" / "phone_book.yaml"


def data(**settings) -> TaskDataModule:
    return TaskDataModule("phone_book", "embedded", selection="trained_rows", **settings)


def test_numbers_are_random_digits_of_different_people() -> None:
    everyone = [row for split in ("train", "validation", "test") for row in rows("phone_book", split)]
    assert len({row["name"] for row in everyone}) == len(everyone) == 4200
    digits = "".join(row["number"] for row in everyone)
    assert len(digits) == 42_000
    expected = len(digits) / 10
    assert sum((digits.count(str(n)) - expected) ** 2 / expected for n in range(10)) < 27.9  # chi², p = 0.001


def test_the_trained_rows_are_scored_for_every_seed() -> None:
    whole = data(seed=1)
    assert whole.indices("train") == whole.indices("selection") == whole.indices("report") == list(range(4000))
    some, other = data(limit_train_rows=250, seed=1), data(limit_train_rows=250, seed=2)
    assert some.indices("train") == some.indices("report") == other.indices("train") == other.indices("selection")
    assert set(some.indices("train")) < set(data(limit_train_rows=1000).indices("train"))
    few = data(limit_train_rows=250, limit_report_rows=20)
    assert len(few.indices("report")) == 20
    assert set(few.indices("report")) < set(few.indices("train"))


def test_settings_that_contradict_trained_rows() -> None:
    for settings, message in (
        ({"selection_rows": 20}, r"data\.selection_rows is 20, but data\.selection is trained_rows"),
        ({"limit_train_rows": 10, "limit_report_rows": 20}, "only 10 rows are trained: set it to at most 10"),
        ({"report_split": "test"}, "which reports on the trained rows of 'train': remove data.report_split"),
        ({"report_tasks": ["piqa"]}, "remove data.mixture and data.report_tasks"),
        ({"num_fewshot": 2}, "scores the trained rows and has no other rows for the prompts: remove data.num_fewshot"),
        ({"train_per_class": 2}, "remove data.train_per_class"),
    ):
        with pytest.raises(UserError, match=message):
            data(**settings)
    with pytest.raises(RowError, match="must be digits"):
        PHONE_BOOK.check({"name": "Ada", "number": "four"})


def test_note() -> None:
    note = selection_note([{"data": {"selection": "trained_rows"}}, {"data": {}}]) or ""
    assert note.startswith("Selection trained_rows in 1 of 2 runs: capacity.")


def test_stored_bits_of_a_run(tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    flags = [
        *("--config", str(EXPERIMENT), "--data.source", "embedded", "--run.folder", str(run), "--run.name", "book"),
        *("--model.backbone.source", "local", "--model.backbone.path", str(tiny_backbone), "--model.adapter.r", "4"),
        *(
            "--data.limit_train_rows",
            "10",
            "--data.limit_report_rows",
            "8",
            "--data.batch_size",
            "5",
            "--trainer.max_epochs",
            "2",
        ),
        *("--trainer.check_val_every_n_epoch", "1", "--forgetting.text", "null", "--run.score_base", "false"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "1"),
    ]
    assert main(["fit", *flags]) == 0
    shown = capsys.readouterr().out
    assert "Selection trained_rows: capacity." in shown
    assert ("for each trained parameter" in shown) != ("stores nothing yet" in shown)
    metrics = json.loads((run / "record.json").read_text())["metrics"]
    model, tokenizer = load_adapter(run)
    items = [json.loads(line) for line in (run / "items.jsonl").read_text().splitlines()]
    bits = []
    for item in items:
        prompt, response = PHONE_BOOK.generation.example(rows("phone_book", "train")[item["row"]]).target
        first, rest = tokenizer(prompt)["input_ids"], tokenizer(response)["input_ids"]
        labels = torch.tensor([[-100] * len(first) + rest])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([first + rest]), labels=labels).loss.item()  # mean, in nats
        bits.append(10 * math.log2(10) - loss * len(rest) / math.log(2))
    assert metrics["report/stored_bits"] == pytest.approx(sum(bits) / 8, abs=1e-3)
    assert metrics["selection/stored_bits"] == pytest.approx(metrics["report/stored_bits"], abs=1e-3)
    total = sum(bits) / 8 * 10  # the trained rows, of which 8 are scored
    assert metrics["capacity/stored_bits"] == pytest.approx(total, abs=1e-2)
    assert metrics["capacity/bits_per_parameter"] * metrics["parameters/trainable"] == pytest.approx(total)
    assert metrics["report/acc"] == sum(item["answer"] == item["label"] for item in items) / 8
    assert main(["report", str(run)]) == 0
    assert "Selection trained_rows: capacity." in next(run.rglob("*.html")).read_text()

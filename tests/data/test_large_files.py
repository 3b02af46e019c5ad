"""Files larger than memory: what is held of a row, and that nothing depends on how rows are read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.collate import pad_rows
from smoa_lightning.data.batches.loaders import ResumableLoader
from smoa_lightning.data.batches.order import BucketOrder
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.embedded import rows

from .conftest import character_tokenizer

MEMORY = """
import json, resource, sys
from pathlib import Path
from smoa_lightning.data.datamodule import TaskDataModule
from tests.data.conftest import character_tokenizer
folder = Path(sys.argv[1])

def peak(count):
    path = folder / f"{count}.jsonl"
    with path.open("w") as stream:
        for n in range(count):
            row = {"goal": f"goal {n // 2}", "sol1": "use " + "ab" * (n % 9 + 1), "sol2": f"use {n}", "label": n % 2}
            stream.write(json.dumps(row) + "\\n")
    data = TaskDataModule("piqa", "local", path=str(path), batch_size=4, packing=count % 2 == 1)
    data.tokenizer = character_tokenizer()
    data.setup("fit")
    loader = iter(data.train_dataloader())
    assert len(next(loader)["input_ids"]) == 4
    assert data.summary()["train"]["rows"] > 0.9 * count
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

few, many = [[peak(count) for count in counts][-1] for counts in ((2000, 2001), (12000, 12001))]  # odd: packed
print(json.dumps([few, many]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is another elsewhere")
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """In lists of Python's objects, the 10,000 rows more and their tokens would take 15 MB."""
    environment = os.environ | {"SMOA_LIGHTNING_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    few, many = json.loads(done.stdout.splitlines()[-1])
    assert many - few < 12 * 1024


# ---- settings of the streaming mode that earlier versions had


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows("piqa", "train")[:120]))
    return path


def make(file: Path, **settings: object) -> TaskDataModule:
    data = TaskDataModule("piqa", "local", path=str(file), batch_size=8, max_length=2000, **settings)
    data.tokenizer = character_tokenizer()
    data.setup("fit")
    return data


def batches(data: TaskDataModule) -> list:
    return [batch["input_ids"].tolist() for batch in data.train_dataloader()]


@pytest.mark.parametrize(
    "settings", [{}, {"num_fewshot": 2}, {"limit_train_rows": 30}, {"num_workers": 1}, {"selection_rows": 0}], ids=str
)
def test_settings_of_streaming_change_nothing(file: Path, settings: dict) -> None:
    plain = make(file, **settings)
    streamed = make(file, streaming=True, stream_buffer_rows=7, stream_epoch_batches=2, **settings)
    assert plain.ignored_settings == []
    assert streamed.ignored_settings == [
        f"data.{n}" for n in ("streaming", "stream_buffer_rows", "stream_epoch_batches")
    ]
    assert batches(streamed) == batches(plain)
    assert streamed.indices("selection") == plain.indices("selection")
    assert streamed.provenance == plain.provenance


def test_embedded_rows_and_mixtures_take_them_too() -> None:
    assert TaskDataModule("piqa", "embedded", streaming=True).ignored_settings == ["data.streaming"]
    data = TaskDataModule("mixture", "embedded", mixture=["piqa", "boolq"], streaming=True)
    assert data.ignored_settings == ["data.streaming"]


def test_a_checkpoint_of_a_streamed_run_is_refused() -> None:
    loader = ResumableLoader([], BucketOrder([1, 2], 1), pad_rows)
    state = {"position": 3, "order": {"source": "ab", "batch_size": 1}, "block": {"epoch": 0, "start": 0, "before": 0}}
    with pytest.raises(
        UserError, match=r"the checkpoint is of a run with data\.streaming, and that order .*new run\.$"
    ):
        loader.load_state_dict(state)

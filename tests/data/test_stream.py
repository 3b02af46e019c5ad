"""Streamed rows against the same rows in memory; resumed streams against uninterrupted ones."""

from __future__ import annotations

import csv
import functools
import itertools
import json
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from smoa_lightning.data.collate import pad_rows
from smoa_lightning.data.files import Located
from smoa_lightning.data.packing import collate_packed
from smoa_lightning.data.prepare import Encoding, encode_training
from smoa_lightning.data.row_stream import RowStream, hub_stream, local_stream
from smoa_lightning.data.sources import Origin, load_split
from smoa_lightning.data.stream import StreamingRows, StreamLoader, StreamOrder, held_out
from smoa_lightning.data.tasks import get_task
from smoa_lightning.errors import UserError

from .conftest import character_tokenizer

TASK = get_task("piqa")
NUM_ROWS = 230
ROWS = [
    {"goal": f"goal {i % 90}", "sol1": "use " + "ab" * (i % 9 + 1), "sol2": f"use {i} of them", "label": i % 2}
    for i in range(NUM_ROWS)
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same rows in every format."""
    folder = tmp_path_factory.mktemp("rows")
    places = {ending: folder / f"train{ending}" for ending in (".jsonl", ".parquet", ".csv", ".tsv")}
    places[".jsonl"].write_text("\ufeff" + "\n\n".join(json.dumps(row) for row in ROWS) + "\n")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), places[".parquet"], row_group_size=50)
    for ending, delimiter in ((".csv", ","), (".tsv", "\t")):
        with places[ending].open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(ROWS[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)
    return places


def memory(rows: list = ROWS, limit: int | None = None, name: str = "rows") -> RowStream:
    """Return a stream that breaks when more than ``limit`` rows are asked of it."""

    def read():
        for number, row in enumerate(rows, start=1):
            assert limit is None or number <= limit, "read too far"
            yield Located(f"{name}, row {number}", row)

    return RowStream(name, name, read)


def streaming(stream: RowStream | None = None, **settings) -> StreamingRows:
    encoding = Encoding(max_length=settings.pop("max_length", 64), overlong=settings.pop("overlong", "error"))
    return StreamingRows(
        stream or memory(), TASK, TASK.protocol(), character_tokenizer(), encoding, **{"buffer_rows": 40, **settings}
    )


def loader(rows: StreamingRows | None = None, **settings) -> StreamLoader:
    rows = rows or streaming()
    order = StreamOrder(
        "rows",
        **{"batch_size": 4, "seed": 3, "buffer_rows": rows.buffer_rows, "bucket": 2, "epoch_batches": 7, **settings},
    )
    collate = collate_packed if order.pack_length else pad_rows
    return StreamLoader(rows, order, functools.partial(collate, pad_id=0))


def batches(loader: StreamLoader, count: int) -> list:
    """Return the next batches of a loader over as many of its epochs as it takes."""
    epochs = itertools.chain.from_iterable(iter(loader) for _ in itertools.count())
    return [batch["input_ids"].tolist() for batch in itertools.islice(epochs, count)]


def pass_of(rows: StreamingRows, epoch: int) -> list:
    return [row for _, block in rows.blocks(epoch) for row in block]


# ---- the rows


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv", ".tsv"])
def test_the_rows_are_those_in_memory(files: dict[str, Path], ending: str) -> None:
    whole, _ = load_split(TASK, "train", Origin("local", path=str(files[ending])))
    stream = streaming(local_stream(files[ending], TASK))
    training = [row for row in whole if not held_out(TASK.group(row), 0, 0.05)]
    assert 0 < len(training) < len(whole) == NUM_ROWS
    examples = [TASK.protocol().example(row) for row in training]
    expected, _ = encode_training(examples, str, character_tokenizer(), Encoding(64))
    for epoch in (0, 3):
        assert pass_of(stream, epoch) == expected
    assert stream.counts["rows"] == 2 * len(expected)
    assert stream.counts["tokens"] == 2 * sum(map(len, expected))
    held = [row.row for row in stream.selection_rows(NUM_ROWS)]
    assert held == [row for row in whole if held_out(TASK.group(row), 0, 0.05)]
    assert stream.selection_rows(3) == stream.selection_rows(NUM_ROWS)[:3]


def test_the_hold_out_is_disjoint_and_of_its_share() -> None:
    stream = streaming(selection_share=0.3)
    held = {TASK.group(row.row) for row in stream.selection_rows(NUM_ROWS)}
    assert 0.15 < len(held) / 90 < 0.45
    trained = Counter(len(row) for row in pass_of(stream, 0))
    assert trained.total() == sum(TASK.group(row) not in held for row in ROWS)
    shares = [sum(held_out(f"group {n}", seed, 0.1) for n in range(3000)) / 3000 for seed in range(5)]
    assert all(0.08 < share < 0.12 for share in shares)
    assert len(set(shares)) > 1


def test_no_hold_out() -> None:
    stream = streaming(selection_share=0)
    assert stream.selection_rows(0) == []
    assert len(pass_of(stream, 0)) == NUM_ROWS
    with pytest.raises(UserError, match=r"held-out share of 0.* set data.selection_rows: 0"):
        stream.selection_rows(5)


def test_passes_part_into_other_blocks() -> None:
    stream = streaming()
    begins = [[begin for begin, _ in stream.blocks(epoch)] for epoch in range(3)]
    assert begins[0] != begins[1] != begins[2]
    assert all(len(rows) <= 40 for epoch in range(3) for _, rows in stream.blocks(epoch))
    begin, rows = list(stream.blocks(2))[2]
    assert next(stream.blocks(2, begin)) == (begin, rows)


def test_a_row_may_stand_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = streaming(selection_share=0)
    once = pass_of(stream, 0)
    monkeypatch.setitem(stream.task.__dict__, "expand", lambda row: [row, row, row])
    assert pass_of(stream, 0) == [row for row in once for _ in range(3)]


# ---- only what is needed is read


def test_the_first_batch_needs_one_block() -> None:
    rows = streaming(memory(limit=65), selection_share=0.3)
    assert len(batches(loader(rows), 3)) == 3
    assert len(rows.selection_rows(5)) == 5
    with pytest.raises(AssertionError, match="read too far"):
        batches(loader(rows), 12)


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_files_are_read_line_by_line(files: dict[str, Path], ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Counter()
    opened = Path.open

    class Counting:
        def __init__(self, stream):
            self.stream = stream

        def __getattr__(self, name):  # the ends of the file are read for its digest
            return getattr(self.stream, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.stream.close()

        def __iter__(self):
            for line in self.stream:
                lines["read"] += bool(line.strip())
                yield line

    monkeypatch.setattr(Path, "open", lambda self, *args, **kwargs: Counting(opened(self, *args, **kwargs)))
    passing = local_stream(files[ending], TASK).read()
    for _ in range(10):
        next(passing)
    passing.close()
    assert lines["read"] == 10 + (ending == ".csv")  # and the header


def test_parquet_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS * 20), file, row_group_size=500)
    monkeypatch.setattr(pyarrow.parquet, "read_table", None)
    pieces = []
    own = pyarrow.parquet.ParquetFile.iter_batches

    def counted(self, **kwargs):
        for piece in own(self, **kwargs):
            pieces.append(piece.num_rows)
            yield piece

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", counted)
    passing = local_stream(file, TASK).read()
    assert next(passing).row == ROWS[0]
    passing.close()
    assert sum(pieces) <= 1000 < len(ROWS) * 20


# ---- the order


def test_each_pass_holds_each_row_once_in_another_order() -> None:
    rows = streaming(selection_share=0)
    sizes = [sum(-(-len(block) // 4) for _, block in rows.blocks(epoch)) for epoch in (0, 1)]
    found = batches(loader(rows), sum(sizes))
    expected = sorted(row.ids for row in pass_of(rows, 0))
    passes = [found[: sizes[0]], found[sizes[0] :]]
    for one in passes:
        assert sorted(tuple(t for t in ids if t) for batch in one for ids in batch) == expected
    assert passes[0] != passes[1][: sizes[0]]
    assert batches(loader(), 30) == batches(loader(), 30)
    assert batches(loader(seed=4), 30) != batches(loader(), 30)


def test_rows_of_a_batch_are_of_like_length() -> None:
    found = batches(loader(streaming(buffer_rows=200), bucket=50), 40)
    padding = sum(ids.count(0) for batch in found for ids in batch) / sum(len(b) * len(b[0]) for b in found)
    assert padding < 0.02


@pytest.mark.parametrize("count", [1, 2, 3])
def test_processes_share_the_stream(count: int) -> None:
    rows = streaming(selection_share=0)
    shares = [batches(loader(rows, rank=rank, world_size=count), 60 // count) for rank in range(count)]
    whole = [batch for step in zip(*shares, strict=True) for batch in step]
    assert len(whole) == 60
    first = -(-NUM_ROWS // 4)  # batches of a pass: blocks of 40 rows make 10 each, the last one a few
    seen = Counter(tuple(t for t in ids if t) for batch in whole[:first] for ids in batch)
    assert seen == Counter(row.ids for row in pass_of(rows, 0))


def test_packed_rows() -> None:
    rows = streaming(selection_share=0)
    packed = loader(rows, pack_length=64)
    found = list(itertools.islice(packed, 5))
    assert found == [] or "position_ids" in found[0]
    assert all((batch["position_ids"] == 0).sum() > len(batch["input_ids"]) for batch in found[:3])
    assert batches(loader(rows, pack_length=64), 20) == batches(loader(rows, pack_length=64), 20)


# ---- resuming


@pytest.mark.parametrize("overlong", ["error", "skip"])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("stop", [0, 1, 6, 7, 9, 10, 11, 40, 75])
def test_resumed_equals_uninterrupted(stop: int, rank: int, overlong: str) -> None:
    make = functools.partial(streaming, max_length=64 if overlong == "error" else 20, overlong=overlong)
    place = {"rank": rank, "world_size": 2}
    whole = loader(make(), **place)
    expected = batches(whole, stop + 20)
    assert (whole.stream.counts["skipped_overlong"] > 0) == (overlong == "skip")
    before = loader(make(), world_size=2)  # the state is that of the first process
    batches(before, stop)
    state = json.loads(json.dumps(before.state_dict()))
    after = loader(make(), **place)
    after.load_state_dict(state)
    assert after.state_dict() == state
    assert batches(after, 20) == expected[stop:]


def test_resuming_encodes_no_block_before_its_own() -> None:
    before = loader()
    batches(before, 45)
    after = loader()
    after.load_state_dict(before.state_dict())
    batches(after, 1)
    assert after.stream.counts["rows"] <= 40 < before.stream.counts["rows"]


def test_another_order_is_refused() -> None:
    state = loader().state_dict()
    with pytest.raises(UserError, match=r"another order of batches .*batch_size 4 -> 8"):
        loader(batch_size=8).load_state_dict(state)
    loader(epoch_batches=9).load_state_dict(state)  # a matter of the trainer alone


class Witness(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["input_ids"].tolist())
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(loader: StreamLoader, callback: Callback) -> list:
    witness = Witness()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=20,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
    )
    trainer.fit(witness, train_dataloaders=loader)
    return witness.seen


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.parametrize("epoch_batches", [7, 20])
def test_lightning_saves_the_position_that_training_is_at(epoch_batches: int) -> None:
    class State(Callback):
        """Notes the loader's state where a checkpoint would be written."""

        def __init__(self, loader):
            self.loader, self.states = loader, {}

        def on_train_batch_end(self, trainer, *args, **kwargs):
            self.states[trainer.global_step] = self.loader.state_dict()

    whole = loader(epoch_batches=epoch_batches)
    states = State(whole)
    assert fit(whole, states) == batches(loader(), 20)
    assert list(states.states) == list(range(1, 21))
    for step, state in states.states.items():
        assert state["position"] == step
        after = loader()
        after.load_state_dict(state)
        assert batches(after, 3) == batches(loader(), step + 3)[step:]


# ---- bad rows


def test_a_bad_row_is_named_or_counted() -> None:
    rows = [*ROWS[:50], {"goal": "x", "sol1": "", "sol2": "b", "label": 1}, *ROWS[50:]]
    with pytest.raises(UserError, match=r"rows, row 51: field 'sol1' must not be empty\."):
        pass_of(streaming(memory(rows)), 0)
    stream = streaming(memory(rows), bad_rows="skip")
    assert pass_of(stream, 0) == pass_of(streaming(), 0)
    assert stream.counts["bad_rows"] == 1


def test_an_overlong_row_is_named_or_counted() -> None:
    rows = [*ROWS[:60], {**ROWS[0], "goal": "goal 1", "sol1": "a" * 80}]
    with pytest.raises(UserError, match=r"rows, row 61: the response has 8\d tokens"):
        pass_of(streaming(memory(rows), selection_share=0), 0)
    stream = streaming(memory(rows), selection_share=0, overlong="skip")
    assert len(pass_of(stream, 0)) == 60
    assert stream.counts["skipped_overlong"] == 1


def test_nothing_to_train_on_is_an_error_and_no_endless_loop() -> None:
    with pytest.raises(UserError, match="rows: no usable training rows"):
        batches(loader(streaming(memory([]))), 1)
    with pytest.raises(UserError, match="rows: no usable training rows"):
        batches(loader(streaming(selection_share=1.0)), 1)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b'{"goal": "a"\n', r"a\.jsonl, row 1: not valid JSON \(.* at column"),
        ("a.jsonl", b'\n{"goal": "\xff"}\n', r"a\.jsonl, row 1 \(line 2\): not valid UTF-8 \(byte 0xff\)"),
        ("a.csv", b"goal,sol1\na,b,c\n", r"a\.csv, row 1 \(line 2\): has 3 values, but the header names 2"),
        ("a.csv", b'goal,sol1\n"a"b,c\n', r"a\.csv, after line 2: not a valid table"),
        ("a.csv", b"goal,sol1\n\xff,c\n", r"a\.csv, after line \d: not a valid table \(.*utf-8"),
        ("a.parquet", b"PAR1", r"a\.parquet: not a readable Parquet file"),
        ("a.json", b"[]", r"a\.json: files with the ending '\.json' can not be streamed; .*nearest: \.jsonl"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        list(local_stream(tmp_path / name, TASK).read())


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        local_stream(tmp_path / "train.jsonl", TASK)


def test_a_snapshot_of_the_hub(tmp_path: Path, files: dict[str, Path]) -> None:
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc" / "train.parquet").write_bytes(files[".parquet"].read_bytes())
    passing = hub_stream(tmp_path / "abc", "someone/piqa", TASK, "train").read()
    assert [row.row for row in passing] == ROWS
    with pytest.raises(UserError, match="someone/piqa@abc validation: these rows can not be streamed"):
        next(hub_stream(tmp_path / "abc", "someone/piqa", TASK, "validation").read())

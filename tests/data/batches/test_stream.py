"""Streamed rows: which are for what, how many are read, the order of the batches, bad rows."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.stream import held_out

from ..streams import NUM_ROWS, ROWS, TASK, batches, loader, memory, pass_of, streaming


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

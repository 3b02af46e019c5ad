from __future__ import annotations

import functools
import random

import pytest
import torch

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches import order
from smoa_lightning.data.batches.collate import collate_choices, collate_part, pad_rows
from smoa_lightning.data.batches.loaders import BatchLoader, ResumableLoader
from smoa_lightning.data.batches.order import BucketOrder
from smoa_lightning.data.batches.packing import PackedRow, collate_packed
from smoa_lightning.data.encoding.items import IGNORED, ChoiceItem, TokenRow

LENGTHS = tuple(random.Random(0).choices(range(1, 61), k=203))


def bucketed_batches(*args, **kwargs):
    return list(order.bucketed_batches(*args, **kwargs))


def longest_first(*args, **kwargs):
    return list(order.longest_first(*args, **kwargs))


def row(*ids, masked=0):
    return TokenRow(ids, (IGNORED,) * masked + ids[masked:])


def test_right_padding():
    batch = pad_rows([row(5, 6, 7, masked=1), row(8)], pad_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]
    assert all(tensor.dtype == torch.long for tensor in batch.values())


def test_padding_by_length_keeps_an_eos_that_is_the_pad_token():
    batch = pad_rows([row(5, 2), row(5, 6, 2)], pad_id=2)
    assert batch["labels"].tolist() == [[5, 2, IGNORED], [5, 6, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_pad_multiple():
    assert pad_rows([row(1, 2, 3)], 0, pad_multiple=8)["input_ids"].shape == (1, 8)
    assert pad_rows([row(*range(8))], 0, pad_multiple=8)["input_ids"].shape == (1, 8)


def test_choices_of_an_item_are_consecutive():
    items = [
        ChoiceItem((row(1, 2), row(1, 3, 4)), (5, 6), label=1, row=10),
        ChoiceItem((row(7), row(8), row(9)), (1, 2, 3), label=0, row=4),
    ]
    batch = collate_choices(items, pad_id=0)
    assert batch["input_ids"].tolist() == [[1, 2, 0], [1, 3, 4], [7, 0, 0], [8, 0, 0], [9, 0, 0]]
    assert batch["num_bytes"].tolist() == [5, 6, 1, 2, 3]
    assert batch["num_choices"].tolist() == [2, 3]
    assert batch["label"].tolist() == [1, 0]
    assert batch["row"].tolist() == [10, 4]
    assert all(tensor.dtype == torch.long for tensor in batch.values())


@pytest.mark.parametrize("bucket", [1, 4, 12])
@pytest.mark.parametrize("batch_size", [1, 7, 32, 500])
def test_each_row_is_in_exactly_one_batch(batch_size, bucket):
    batches = bucketed_batches(LENGTHS, batch_size, seed=1, epoch=0, bucket=bucket)
    assert sorted(i for batch in batches for i in batch) == list(range(len(LENGTHS)))
    assert sum(len(batch) != batch_size for batch in batches) <= 1


def test_order_depends_on_seed_and_epoch_only():
    first = bucketed_batches(LENGTHS, 8, seed=1, epoch=0)
    random.seed(5)
    torch.manual_seed(5)
    assert bucketed_batches(LENGTHS, 8, seed=1, epoch=0) == first
    assert bucketed_batches(LENGTHS, 8, seed=2, epoch=0) != first
    assert bucketed_batches(LENGTHS, 8, seed=1, epoch=1) != first


def test_the_order_never_changes_between_versions():
    """A run that was started under one version of the program must resume in the same order under the next."""
    assert bucketed_batches([3, 1, 2, 5, 4, 1, 2], 2, seed=0, epoch=1, bucket=2) == [[2, 0], [3], [1, 5], [6, 4]]


def test_buckets_save_padding():
    def padding(batches):
        return sum(max(LENGTHS[i] for i in batch) * len(batch) for batch in batches) - sum(LENGTHS)

    assert padding(bucketed_batches(LENGTHS, 8, 0, 0, bucket=32)) < padding(bucketed_batches(LENGTHS, 8, 0, 0, 1)) / 4


@pytest.mark.parametrize("world_size", [2, 3, 7, 8, 300])
@pytest.mark.parametrize("rows", [203, 145, 160, 3])
def test_processes_share_the_batches_of_one_process(world_size, rows):
    """Each row once, in the batch in which one process has it, with the same padding; every process takes part."""
    lengths, batch_size = LENGTHS[:rows], 4
    one = list(BucketOrder(lengths, batch_size * world_size, 5, 4).upcoming(1))
    orders = [BucketOrder(lengths, batch_size, 5, 4, rank, world_size) for rank in range(world_size)]
    assert {len(own) for own in orders} == {len(one)}
    for batch, *parts in zip(one, *(own.upcoming(1) for own in orders), strict=True):
        assert sorted(row for *own, _ in parts for row in own) == sorted(batch)
        assert {lengths[longest] for *_, longest in parts} == {max(lengths[row] for row in batch)}
        counts = [len(own) for *own, _ in parts]
        assert max(counts) - min(counts) <= 1


def test_orders_of_one_process_and_of_several_differ_for_a_resume():
    one, two = BucketOrder(LENGTHS, 8).identity(), BucketOrder(LENGTHS, 8, world_size=2).identity()
    assert set(one) == {"num_rows", "num_tokens", "batch_size", "seed", "bucket", "world_size"}  # as in old checkpoints
    assert set(two) > set(one)  # the order of several processes was another one before


@pytest.mark.parametrize("collate", [pad_rows, collate_packed])
def test_a_part_is_cut_out_of_the_padded_batch(collate):
    rows = [row(1, 2, 3, 4, 5), row(6, 7, 8, masked=1), row(9, 10)]
    if collate is collate_packed:
        rows = [PackedRow((one,)) for one in rows]
    collate = functools.partial(collate, pad_id=0, pad_multiple=8)
    whole = collate(rows)
    for own in ([0, 2], [1], [2]):
        part = collate_part([*(rows[i] for i in own), rows[0]], collate)
        for name in ("input_ids", "labels", "attention_mask", "position_ids"):
            if isinstance(whole.get(name), torch.Tensor):
                assert torch.equal(part[name], whole[name][own]), name
        assert int(part["num_tokens"]) == sum(len(rows[i]) for i in own)
    empty = collate_part([rows[0]], collate)
    assert empty["input_ids"].shape == (1, 8)
    assert (empty["labels"] == IGNORED).all()
    assert int(empty["num_tokens"]) == 0


def test_longest_first():
    lengths, choices = [3, 9, 4, 9, 1], [2, 2, 3, 2, 2]
    assert longest_first(lengths, choices, max_items=2, max_tokens=None) == [[1, 3], [2, 0], [4]]
    # 2 rows x 9 = 18; a second item would make 36 > 30; then 3 x 4 + 2 x 4 = 20, and 2 x 4 more are 28
    assert longest_first(lengths, choices, max_items=9, max_tokens=30) == [[1], [3], [2, 0, 4]]
    assert longest_first(lengths, choices, max_items=9, max_tokens=5) == [[1], [3], [2], [0], [4]]


# ---- loaders

ROWS = [TokenRow((i,) * (1 + i % 5), (i,) * (1 + i % 5)) for i in range(43)]


def loader(num_workers=0, **kwargs):
    own = BucketOrder(tuple(map(len, ROWS)), **{"batch_size": 4, "seed": 3, "bucket": 2, **kwargs})
    return ResumableLoader(ROWS, own, functools.partial(pad_rows, pad_id=0), num_workers)


def rows_of(batches):
    return [batch["input_ids"][:, 0].tolist() for batch in batches]


def take(loader, count):
    iterator = iter(loader)
    return rows_of(next(iterator) for _ in range(count))


def test_an_epoch_holds_each_row_once_and_the_next_another_order():
    own = loader()
    first, second = rows_of(own), rows_of(own)
    assert len(first) == len(second) == len(own) == 11
    for epoch in (first, second):
        assert sorted(row for batch in epoch for row in batch) == list(range(43))
    assert first != second


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 5, 11, 17])
def test_five_and_five_are_ten(stop, num_workers):
    whole = loader()
    expected = (rows_of(whole) + rows_of(whole) + rows_of(whole))[:22]
    before = loader(num_workers)
    seen = rows_of(before) if stop > 11 else []
    seen += take(before, stop - len(seen))
    after = loader(num_workers)
    after.load_state_dict(before.state_dict())
    assert after.state_dict() == before.state_dict()
    assert (seen + rows_of(after) + rows_of(after))[:22] == expected


def test_an_iterator_that_is_not_used_changes_nothing():
    own = loader()
    iter(own)
    assert rows_of(own) == rows_of(loader())


def test_a_state_of_another_order_is_refused():
    state = loader(batch_size=8).state_dict()
    with pytest.raises(UserError, match="batch_size 8 -> 4"):
        loader().load_state_dict(state)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_draws_nothing_from_the_global_generator(num_workers):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    list(loader(num_workers))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fixed_batches():
    own = BatchLoader(ROWS, [[2, 0], [1]], functools.partial(pad_rows, pad_id=0))
    assert len(own) == 2
    assert rows_of(own) == rows_of(own) == [[2, 0], [1]]

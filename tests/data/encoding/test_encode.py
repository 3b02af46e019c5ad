from __future__ import annotations

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.encode import (
    OverlongError,
    Pair,
    bos_prefix,
    encode_pairs,
    move_spaces,
    scoring_row,
    training_row,
)
from smoa_lightning.data.encoding.items import IGNORED
from smoa_lightning.data.tasks import RowError

from ..conftest import character_ids, character_tokenizer

BOS, EOS = 1, 2


def test_exact_ids_and_labels(tokenizer):
    (pair,) = encode_pairs(tokenizer, [("ab:", " cd")])
    row = training_row(pair, EOS, max_length=20)
    assert list(row.ids) == [*character_ids("ab: cd"), EOS]
    assert list(row.labels) == [IGNORED] * 3 + [*character_ids(" cd"), EOS]
    assert row.num_targets == 4
    assert not row.truncated

    everything = training_row(pair, EOS, max_length=20, loss_on="all")
    assert everything.labels == everything.ids

    scored = scoring_row(pair, max_length=20)
    assert list(scored.ids) == character_ids("ab: cd")
    assert list(scored.labels) == [IGNORED] * 3 + character_ids(" cd")


def test_eos_is_a_target_when_it_is_also_the_pad_token():
    tokenizer = character_tokenizer(pad="<eos>")
    row = training_row(encode_pairs(tokenizer, [("a", "b")])[0], tokenizer.eos_token_id, 20)
    assert row.labels[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize(
    ("adds_bos", "add_bos", "expected"),
    [(False, "auto", ()), (True, "auto", (BOS,)), (False, True, (BOS,)), (True, False, ())],
)
def test_bos(adds_bos, add_bos, expected):
    tokenizer = character_tokenizer(adds_bos=adds_bos)
    assert bos_prefix(tokenizer, add_bos) == expected
    (pair,) = encode_pairs(tokenizer, [("a", "b")], add_bos)
    assert list(scoring_row(pair, 9).ids) == [*expected, *character_ids("ab")]


def test_a_tokenizer_without_bos():
    tokenizer = character_tokenizer(with_bos=False)
    assert bos_prefix(tokenizer, "auto") == ()
    with pytest.raises(UserError, match="no BOS token"):
        bos_prefix(tokenizer, True)


def test_spaces_at_the_end_of_the_prompt_move(tokenizer):
    assert move_spaces("q: \n", "a") == ("q:", " \na")
    (moved,) = encode_pairs(tokenizer, [("q: ", "a")])
    (plain,) = encode_pairs(tokenizer, [("q:", " a")])
    assert moved == plain


def test_merge_over_the_border(merging_tokenizer):
    """With a=1 b=2 c=3 bc=4, "abc" is [a, bc] and the prompt "ab" alone [a, b]: two tokens, so nothing is left."""
    clean, merged = encode_pairs(merging_tokenizer, [("ab", "a"), ("ab", "ca")])
    assert clean == Pair((), (1, 2), (1,), clean=True)
    assert merged == Pair((), (1, 4), (1,), clean=False)
    (swallowed,) = encode_pairs(merging_tokenizer, [("ab", "c")])
    assert swallowed.response == ()
    with pytest.raises(RowError, match="no token of its own"):
        scoring_row(swallowed, 10)
    with pytest.raises(RowError, match="no token of its own"):
        training_row(swallowed, 0, 10)


def test_joint_encoding_sees_the_response_as_in_running_text(merging_tokenizer):
    """A response keeps its own merges: "xy" is one token, as it is in the middle of a text."""
    (pair,) = encode_pairs(merging_tokenizer, [("a", "xy")])
    assert pair.response == (7,)


def test_empty_prompt_starts_from_bos_or_eos(tokenizer, merging_tokenizer):
    assert encode_pairs(tokenizer, [("", "ab")])[0].prefix == (BOS,)
    assert encode_pairs(merging_tokenizer, [("", "ab")])[0].prefix == (merging_tokenizer.eos_token_id,)


def test_nothing_to_encode(tokenizer):
    assert encode_pairs(tokenizer, []) == []


@pytest.mark.parametrize("prefix", [(), (BOS,)])
@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_truncation_drops_the_left_of_the_prompt(prefix, loss_on):
    pair = Pair(prefix, tuple(range(10, 20)), (30, 31, 32))
    row = training_row(pair, EOS, max_length=8, loss_on=loss_on)
    room = 8 - 4 - len(prefix)
    assert row.ids == (*prefix, *range(20 - room, 20), 30, 31, 32, EOS)
    assert row.labels[-4:] == (30, 31, 32, EOS)
    assert row.truncated
    assert len(row) == 8


def test_limits_of_truncation():
    pair = Pair((), (10, 11), (30, 31))
    assert training_row(pair, EOS, max_length=4).ids == (11, 30, 31, EOS)
    assert scoring_row(pair, max_length=3).ids == (11, 30, 31)
    assert not scoring_row(pair, max_length=4).truncated
    # without BOS one token of the prompt must remain, or nothing predicts the first token of the response
    with pytest.raises(OverlongError, match="3 tokens and does not fit into max_length 3"):
        training_row(pair, EOS, max_length=3)
    with pytest.raises(OverlongError):
        scoring_row(pair, max_length=2)
    with_bos = Pair((BOS,), (10, 11), (30, 31))
    assert scoring_row(with_bos, max_length=3).ids == (BOS, 30, 31)


def test_training_and_scoring_share_their_tokens(tokenizer):
    (pair,) = encode_pairs(tokenizer, [("Question: why?\nAnswer:", " so.")], add_bos=True)
    assert training_row(pair, EOS, 99).ids == (*scoring_row(pair, 99).ids, EOS)

"""Conversations: messages that are context only, and the columns ``system`` and ``history``."""

from __future__ import annotations

import json

import pytest

from smoa_lightning.data.rows.sources import Origin, load_split
from smoa_lightning.data.tasks import CHAT, RowError, task_with_fields

ASK, MORE = {"role": "user", "content": "Hi"}, {"role": "user", "content": "No"}
WRONG, RIGHT = {"role": "assistant", "content": "WRONG"}, {"role": "assistant", "content": "right"}


def said(*messages, **columns):
    return {"messages": list(messages), **columns}


# ---- weight, train, loss


@pytest.mark.parametrize(
    "mask", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": False}, {"loss": 0, "weight": None}]
)
def test_a_masked_reply_is_context_only(mask):
    rows = CHAT.rows_of(said(ASK, WRONG | mask, MORE, RIGHT | {"weight": 1}))
    assert [row["reply"] for row in rows] == ["right"]
    example = CHAT.generation.example(rows[0])
    assert example.prompt == "User: Hi\nAssistant: WRONG\nUser: No\nAssistant:"
    assert example.masked
    assert CHAT.unread(said(ASK, WRONG | mask, MORE, RIGHT)) == set()


@pytest.mark.parametrize("mark", [{"weight": 1}, {"train": True}, {"loss": True}, {"weight": None}])
def test_an_unmasked_reply_is_the_same_row_as_before(mark):
    assert CHAT.rows_of(said(ASK, RIGHT | mark)) == CHAT.rows_of(said(ASK, RIGHT))


def test_weights_of_user_messages():
    """Weight 1 is the default of OpenAI's format, and a user message is never a target."""
    (row,) = CHAT.rows_of(said(ASK | {"weight": 1}, RIGHT))
    assert row["messages"] == [ASK]
    (masked,) = CHAT.rows_of(said(ASK | {"train": False}, RIGHT))
    assert CHAT.generation.example(masked).target == CHAT.generation.example(row).target


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([ASK, RIGHT | {"weight": 0.5}], "entry 2 has weight 0.5, but it must be 1 or 0"),
        ([ASK, RIGHT | {"train": "no"}], "entry 2 has train 'no', but it must be true or false"),
        ([ASK, RIGHT | {"loss": [0]}], r"entry 2 has loss \[0\], but it must be true or false"),
        (
            [ASK | {"train": True}, RIGHT],
            "entry 1 is a message of the user with train true, but only repl",
        ),
        ([ASK, RIGHT | {"weight": 1, "train": False}], "entry 2 has weight and train that contradict each other"),
        ([ASK, RIGHT | {"weight": 0}], "has only replies with weight 0 .or train or loss false.: nothing to learn"),
    ],
)
def test_bad_weights(messages, message):
    with pytest.raises(RowError, match=f"'messages' .*{message}"):
        CHAT.check(said(*messages))


# ---- contents in parts


def test_parts_of_text_are_one_text():
    parts = [{"type": "text", "text": "Hi", "image_url": None}, {"type": "text", "text": "you"}]
    assert CHAT.check(said({"role": "user", "content": parts}, RIGHT)) == CHAT.check(
        said({"role": "user", "content": "Hi\nyou"}, RIGHT)
    )
    for part, message in (
        ({"type": "image_url", "image_url": {}}, "a part of type 'image_url', but only parts of type 'text' are read"),
        ({"type": "text", "text": None}, "a part of type 'text', but only parts"),
    ):
        with pytest.raises(RowError, match=f"entry 1 has a content that has {message}"):
            CHAT.check(said({"role": "user", "content": [*parts, part]}, RIGHT))
    with pytest.raises(RowError, match="entry 1 has a content that must be text, not a list"):
        CHAT.check(said({"role": "user", "content": ["Hi"]}, RIGHT))


# ---- system and history


def test_a_column_of_system_messages():
    (row,) = CHAT.rows_of(said(ASK, RIGHT, system="Be brief."))
    assert row == CHAT.rows_of(said({"role": "system", "content": "Be brief."}, ASK, RIGHT))[0]
    assert CHAT.rows_of(said(ASK, RIGHT, system="", history=None)) == CHAT.rows_of(said(ASK, RIGHT))
    mapped = task_with_fields(CHAT, {"system": "system_prompt"})
    assert mapped.rows_of(said(ASK, RIGHT, system_prompt="Be brief.")) == [row]


@pytest.mark.parametrize(
    "history",
    [[["Hi", "right"]], [ASK, RIGHT], ({"from": "human", "value": "Hi"}, {"from": "gpt", "value": "right"})],
)
def test_earlier_turns(history):
    expected = CHAT.rows_of(said(ASK, RIGHT, MORE, RIGHT))
    assert CHAT.rows_of(said(MORE, RIGHT, history=history)) == expected
    system = {"role": "system", "content": "S"}
    assert CHAT.rows_of(said(system, MORE, RIGHT, history=history)) == CHAT.rows_of(
        said(system, ASK, RIGHT, MORE, RIGHT)
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"system": 3}, "'system' must be text"),
        ({"history": "x"}, "'history' must be a list of turns, not text"),
        ({"history": [["a", "b", "c"]]}, "'history' is a list whose entry 1 must be a pair"),
        ({"history": [["a", ""]]}, "'history' is a list whose entry 1 holds a text that must not be empty"),
        ({"history": [{"role": "spy", "content": "x"}]}, "'history' is a list whose entry 1 has the role 'spy'"),
        ({"system": "S", "history": [{"role": "system", "content": "T"}]}, "'system' is set, and the messages have a"),
    ],
)
def test_bad_columns(columns, message):
    with pytest.raises(RowError, match=message):
        CHAT.check(said(ASK, RIGHT, **columns))


def test_columns_of_a_text_table(tmp_path):
    import csv

    with (tmp_path / "train.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["messages", "system", "history", "tools"])
        writer.writerow([json.dumps([MORE, RIGHT]), "S", json.dumps([["Hi", "right"]]), ""])
    rows, _ = load_split(CHAT, "train", Origin("local", str(tmp_path)))
    assert len(rows) == 2
    assert rows[0]["messages"] == [{"role": "system", "content": "S"}, ASK]
    assert rows.ignored == []  # ``tools`` is empty

"""ConvAI2 and DailyDialog: the layouts they come in, one row for each reply, prompts with whole turns."""

from __future__ import annotations

import pytest

from smoa_lightning.data.tasks import CONVAI2, DAILY_DIALOG, Message, RowError

from ..made_rows import ROWS

PERSONA = ["i have two dogs.", "i  cook ."]
TURNS = ["hi !", "hello . i cook .", "what ?", "soup\nand bread .", "nice !"]
HEAD = "your persona: i have two dogs.\nyour persona: i cook .\n"
OURS = {"personality": PERSONA, "dialog": TURNS}
EXPANDED = [
    {"personality": PERSONA, "history": TURNS[:1], "reply": TURNS[1]},
    {"personality": PERSONA, "history": TURNS[:3], "reply": TURNS[3]},
]
UTTERANCES = [
    {"history": TURNS[:1], "candidates": ["wrong", TURNS[1]]},
    {"history": TURNS[:3], "candidates": ["wrong", "also wrong", TURNS[3]]},
]
ENTRIES = ("history", "candidates")


def expanded(task, row):
    return task.expand(task.check(row))


# ---- ConvAI2


def test_a_dialogue_becomes_one_row_for_each_reply():
    assert expanded(CONVAI2, OURS) == EXPANDED
    assert expanded(CONVAI2, {**OURS, "dialog": TURNS[:2]}) == EXPANDED[:1]


def test_golden():
    example = CONVAI2.generation.example(EXPANDED[1])
    assert example.head == HEAD
    assert example.turns == ("Partner: hi !\n", "You: hello . i cook .\n", "Partner: what ?\nYou:")
    assert example.response == " soup and bread ."  # a line break would end the reply
    assert example.reference == "soup and bread ."
    assert example.answer is None
    assert example.messages == (
        Message("system", HEAD.strip()),
        Message("user", "hi !"),
        Message("assistant", "hello . i cook ."),
        Message("user", "what ?"),
    )


def test_the_persona_and_the_latest_turn_outlive_the_others():
    example = CONVAI2.generation.example(EXPANDED[1]).shortened()
    assert example.prompt == HEAD + "You: hello . i cook .\nPartner: what ?\nYou:"
    example = example.shortened()
    assert example.prompt == HEAD + "Partner: what ?\nYou:"
    assert [message.role for message in example.messages] == ["system", "user"]
    assert example.shortened() is None


@pytest.mark.parametrize(
    "row",
    [
        {"personality": PERSONA, "utterances": UTTERANCES},
        {"personality": PERSONA, "utterances": {name: [entry[name] for entry in UTTERANCES] for name in ENTRIES}},
    ],
    ids=["objects", "columns"],
)
def test_the_layout_with_utterances(row):
    assert expanded(CONVAI2, row) == EXPANDED


def test_the_layouts_with_one_reply_a_row():
    for entry, row in zip(UTTERANCES, EXPANDED, strict=True):
        assert expanded(CONVAI2, {"personality": PERSONA, **entry, "conv_id": 3, "utterance_idx": 1}) == [row]
        assert expanded(CONVAI2, {"personality": PERSONA, "history": row["history"], "reply": row["reply"]}) == [row]


def test_one_persona_stays_together_in_any_order_of_its_lines():
    row = expanded(CONVAI2, OURS)[0]
    assert CONVAI2.group(row) == CONVAI2.group({**row, "personality": ["I COOK .", "i have  two dogs."], "reply": "x"})
    assert CONVAI2.group(row) != CONVAI2.group({**row, "personality": ["i cook ."]})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**OURS, "personality": []}, r"'personality' is a list of 0, but must hold at least 1 text\(s\)"),
        ({**OURS, "personality": "i cook"}, "'personality' is text, but must be a list of texts"),
        ({**OURS, "dialog": ["hi !"]}, r"'dialog' is a list of 1, but must hold at least 2 text\(s\)"),
        ({**OURS, "dialog": ["hi !", ""]}, "'dialog' is a list whose entry 2 must not be empty"),
        ({**OURS, "replies": [5]}, "'replies' names position 5, but there are 5 turns"),
        ({**OURS, "replies": [3, 1]}, r"'replies' must ascend, but is \[3, 1\]"),
        ({**OURS, "replies": [0]}, r"'replies' must hold whole numbers from 1 on, but is \[0\]"),
        ({**OURS, "replies": []}, "'replies' must be a list of positions"),
        ({"personality": PERSONA}, r"'dialog' is missing \(the row has personality\)"),
        (
            {"personality": PERSONA, "utterances": []},
            "'utterances' must be a list of utterances, not a list that is empty",
        ),
        ({"personality": PERSONA, "utterances": ["hi"]}, "'utterances', entry 1: field 'history' is missing"),
        ({"personality": PERSONA, "utterances": [{"history": ["hi"]}]}, "entry 1: field 'candidates' is missing"),
        (
            {"personality": PERSONA, "utterances": {"history": [["a"]], "candidates": [["b"], ["c"]]}},
            "'utterances' must hold lists 'history' and 'candidates' of one length",
        ),
        ({"personality": PERSONA, "utterances": {"history": 5, "candidates": [["b"]]}}, "must hold lists 'history'"),
        ({"personality": PERSONA, "utterances": UTTERANCES[::-1]}, "entry 2 does not continue the entry before"),
        ({"personality": PERSONA, "history": ["hi", 3], "candidates": ["x"]}, "'history' is a list whose entry 2 must"),
        ({"personality": PERSONA, "history": ["hi"], "candidates": []}, "'candidates' is a list of 0"),
        (
            {"personality": PERSONA, "history": ["hi"], "reply": ""},
            "'dialog' is a list whose entry 2 must not be empty",
        ),
    ],
)
def test_bad_convai2_rows(row, message):
    with pytest.raises(RowError, match=message):
        CONVAI2.check(row)


def test_positions_in_a_text_table():
    field = CONVAI2.schema["replies"]
    assert field.check(field.parse("1, 3 5")) == [1, 3, 5]
    with pytest.raises(RowError, match="must be a list of positions, not text"):
        field.check(field.parse("first"))


# ---- ParlAI's text

PARLAI = """\
1 your persona: i have two dogs.
2 your persona: i  cook .
3 partner's persona: i am a spy.
4 hi !\thello . i cook .
5 what ?\tsoup and bread .\t\twrong|also wrong
1 your persona: i sing.
2 __SILENCE__\tgood day !
3 to you too .\tthanks .
1 your persona: i was cut off.
"""


def read(text, task=CONVAI2):
    return list(task.read_text(enumerate(text.split("\n"), start=1)))


def test_parlai_text():
    (first, one), (second, two) = read(PARLAI)
    assert (first, second) == (1, 6)
    assert one["personality"] == PERSONA
    assert one["dialog"] == ["hi !", "hello . i cook .", "what ?", "soup and bread ."]
    assert [row["reply"] for row in expanded(CONVAI2, one)] == ["hello . i cook .", "soup and bread ."]
    # who opens the conversation answers nothing, and speaks second-last
    assert two["dialog"] == ["good day !", "to you too .", "thanks ."]
    assert expanded(CONVAI2, two) == [{"personality": ["i sing."], "history": two["dialog"][:2], "reply": "thanks ."}]
    assert CONVAI2.generation.example(expanded(CONVAI2, two)[0]).turns == (
        "You: good day !\n",
        "Partner: to you too .\nYou:",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("your persona: i sing.", "must begin with a number and a space: 'your persona"),
        ("2 hi\tyes", "has number 2 after none; a dialogue counts from 1"),
        ("1 your persona: i sing.\n3 hi\tyes", "has number 3 after 1"),
        ("1 your persona: i sing.\n2 hi there", "has no reply after a tab: 'hi there'"),
        ("1 your persona: i sing.\n2 hi\t ", "has no reply after a tab"),
        ("1 your persona: i sing.\n1 hi\tyes", "begins a dialogue, but the one before it has no turn"),
    ],
)
def test_bad_parlai_text(text, message):
    with pytest.raises(RowError, match=message):
        read(text)


# ---- DailyDialog


def test_every_turn_from_the_second_on_is_a_reply():
    row = {"dialog": ["Tea ? ", " Yes , please . ", "Milk ?"], "act": [1, 2, 1], "emotion": [0, 4, 0]}
    rows = expanded(DAILY_DIALOG, row)
    assert rows == [
        {"history": ["Tea ? "], "reply": " Yes , please . "},
        {"history": ["Tea ? ", " Yes , please . "], "reply": "Milk ?"},
    ]
    examples = [DAILY_DIALOG.generation.example(row) for row in rows]
    assert [example.target for example in examples] == [
        ("Partner: Tea ?\nYou:", " Yes , please ."),
        ("You: Tea ?\nPartner: Yes , please .\nYou:", " Milk ?"),
    ]
    assert [message.role for message in examples[1].messages] == ["assistant", "user"]
    assert DAILY_DIALOG.group(row) == "tea ?"


def test_the_original_text_of_daily_dialog():
    rows = read("Tea ? __eou__ Yes . __eou__\n\nAh ! __eou__ Oh ? __eou__ Hm . __eou__\n", DAILY_DIALOG)
    assert rows == [(1, {"dialog": ["Tea ?", "Yes ."]}), (3, {"dialog": ["Ah !", "Oh ?", "Hm ."]})]


@pytest.mark.parametrize("task", [CONVAI2, DAILY_DIALOG])
def test_invented_rows(task):
    assert task.protocols == (task.generation,)
    assert (task.generation.metric, task.generation.selection_metric) == ("perplexity", "nll")
    for row in ROWS[task.name]:
        for reply in expanded(task, row):
            example = task.generation.example(reply)
            assert example.prompt.endswith("\nYou:")
            assert not any(stop in example.response for stop in task.generation.stop)

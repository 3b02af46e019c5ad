"""Rows of one's own: choice, instruction, chat, and other names of fields."""

from __future__ import annotations

import json

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.tasks import CHAT, CHOICE, GSM8K, INSTRUCTION, PIQA, Message, RowError, task_with_fields

ITEM = {"prompt": "Question: what is hot?\nAnswer:", "choices": ["ice", " steam ", "3"], "label": 1}

# ---- choice


def test_choice_under_both_protocols():
    row = CHOICE.check(ITEM)
    example = CHOICE.protocol().example(row)
    assert example.pairs == [(ITEM["prompt"], f" {choice}") for choice in ("ice", "steam", "3")]
    assert example.label == 1
    reply = CHOICE.protocol("generation").example(row)
    assert "the question: Question: what is hot?\nAnswer:\n\nAnswer1: ice Answer2:" in reply.prompt
    assert reply.answer == "answer2"


def test_white_space_at_the_end_of_the_prompt_separates_it_from_the_choices():
    assert CHOICE.likelihood.example(CHOICE.check({**ITEM, "prompt": "Hot?\n"})).target == ("Hot?\n", "steam")


@pytest.mark.parametrize(
    ("label", "labels", "position"),
    [
        (0, None, 0),
        (2, None, 2),
        ("2", None, 2),
        ("ice", None, 0),
        ("3", None, 2),  # the text of a choice comes before a position
        ("B", None, 1),
        ("B", ["C", "B", "A"], 1),
        ("A", ["C", "B", "A"], 2),
        ("1", ["1", "2", "3"], 0),
        (1, ["1", "2", "3"], 0),
        (" y", ["x", "y", "z"], 1),
    ],
)
def test_labels(label, labels, position):
    row = CHOICE.check({**ITEM, "label": label} | ({"labels": labels} if labels else {}))
    assert CHOICE.likelihood.example(row).label == position


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": ""}, "'prompt' must not be empty"),
        ({"choices": ["ice"]}, r"'choices' is a list of 1, but must hold at least 2 text\(s\)"),
        ({"choices": ["ice"] * 27}, "'choices' offers 27 choices, but at most 26 are allowed"),
        ({"choices": ["ice", "ice"], "label": "ice"}, "'label' is 'ice', which is the text of 2 choices"),
        ({"choices": ["B", "A"], "label": "A"}, "'A', which is the text of choice 2 and names choice 1"),
        ({"choices": ["1", "2", "3"], "label": "1"}, "'1', which is the text of choice 1 and names choice 2"),
        ({"prompt": "a \ud800 b"}, r"'prompt' holds half a character \(.ud800 at 3\)"),
        ({"choices": ["ice", "\udc00"]}, "'choices' is a list whose entry 2 holds half a character"),
        ({"label": 3}, r"'label' is 3, but the 3 choices count from 0 to 2 \(or from A on\)"),
        ({"label": -1}, "'label' is -1, but the 3 choices count from 0 to 2"),
        ({"label": "D"}, "'label' is 'D', but the 3 choices count from 0 to 2"),
        ({"label": "snow"}, "'label' is 'snow', but must be a position, a letter or the text of a choice"),
        ({"label": True}, "'label' must be a whole number or text, not true/false"),
        ({"label": " "}, "'label' must not be empty"),
        ({"label": "D", "labels": ["A", "B", "C"]}, "'label' is 'D', but the labels are 'A', 'B', 'C'"),
        ({"labels": ["A", "B"]}, "'labels' must name each of the 3 choices once"),
        ({"labels": ["A", "A", "B"]}, "'labels' must name each of the 3 choices once"),
    ],
)
def test_bad_choices(change, message):
    with pytest.raises(RowError, match=message):
        CHOICE.check({**ITEM, **change})


# ---- instruction


def test_instruction():
    row = INSTRUCTION.check({"instruction": "Add.", "input": "1 and 2", "output": "3\n"})
    example = INSTRUCTION.generation.example(row)
    assert example.prompt.endswith("### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n")
    assert (example.response, example.answer) == ("3", None)
    assert example.messages == (Message("user", "Add.\n\n1 and 2"),)
    short = INSTRUCTION.generation.example(INSTRUCTION.check({"instruction": "Sing.", "output": "La."}))
    assert "### Input" not in short.prompt
    assert short.messages == (Message("user", "Sing."),)


def test_bad_instruction():
    with pytest.raises(RowError, match="'output' must not be empty"):
        INSTRUCTION.check({"instruction": "Sing.", "output": ""})


# ---- chat

TALK = [("system", "Be brief."), ("user", "Hi?"), ("assistant", "Hi."), ("user", "More"), ("assistant", "No.\nNo!")]
CONVERSATION = {"messages": [{"role": role, "content": text} for role, text in TALK]}


def test_chat_has_one_row_for_each_message_of_the_assistant():
    first, second = CHAT.expand(CHAT.check(CONVERSATION))
    assert CHAT.generation.example(first).target == ("Be brief.\nUser: Hi?\nAssistant:", " Hi.")
    example = CHAT.generation.example(second)
    assert example.prompt == "Be brief.\nUser: Hi?\nAssistant: Hi.\nUser: More\nAssistant:"
    assert example.response == " No.\nNo!"
    assert example.messages == tuple(Message(role, text) for role, text in TALK[:4])
    assert example.shortened().prompt == "Be brief.\nAssistant: Hi.\nUser: More\nAssistant:"
    assert CHAT.generation.chat_template


def test_a_group_of_chat_is_a_conversation(tmp_path):
    """Conversations that open alike are separate; other answers to the same messages of the user are not."""

    def talk(*texts):
        return {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]}

    talks = [talk("Hi", "Hello!", "A tram?", "At nine."), talk("Hi", "Hello!", "A bus?", "At ten."),
             talk("hi ", "Good day.", "a tram?", "At two.")]  # fmt: skip
    first, second, third = (CHAT.group(CHAT.check(each)) for each in talks)
    assert first == third != second
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, talks)))
    data = TaskDataModule(task="chat", source="local", path=str(tmp_path))
    data.resolve()
    groups = data.rows("train").groups.tolist()  # two replies in each conversation
    assert groups == [groups[0]] * 2 + [groups[2]] * 2 + [groups[0]] * 2
    assert groups[0] != groups[2]
    alone = [{"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Ask!"}]
    assert (
        CHAT.group({"system": "", "history": [], "messages": [*alone, {"role": "assistant", "content": "?"}]}) == "ask!"
    )


def test_the_layout_of_sharegpt():
    names = {"user": "human", "assistant": "gpt"}
    other = {"messages": [{"from": names.get(role, role), "value": text} for role, text in TALK]}
    assert CHAT.check(other) == CHAT.check(CONVERSATION)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "'messages' must be a list of messages, not a list that is empty"),
        ("hi", "'messages' must be a list of messages, not text"),
        (["hi"], "'messages' is a list whose entry 1 must be an object with 'role' and 'content'"),
        ([{"role": "spy", "content": "x"}], "entry 1 has the role 'spy'; roles are system, user, assistant"),
        ([{"content": "x"}], "entry 1 has the role None"),
        ([{"role": "user"}], r"entry 1 has a content that must be text, not missing \(null\)"),
        ([{"role": "user", "content": " "}], "entry 1 has a content that must not be empty"),
        (CONVERSATION["messages"][:2], "has no assistant message after a user message"),
        (CONVERSATION["messages"][2:3], "has no assistant message after a user message"),
        ([*CONVERSATION["messages"], {"role": "system", "content": "x"}], "a system message as entry 6"),
    ],
)
def test_bad_messages(messages, message):
    with pytest.raises(RowError, match=message):
        CHAT.check({"messages": messages})


# ---- other names


def test_other_names_for_the_fields():
    task = task_with_fields(PIQA, {"goal": "question", "sol1": "sol2", "sol2": "sol1"})
    row = {"question": "Dry a cup", "sol1": "use a sieve", "sol2": "use a towel", "label": 0}
    assert task.check(row) == {"goal": "Dry a cup", "sol1": "use a towel", "sol2": "use a sieve", "label": 0}
    assert PIQA.fields == {}
    assert task_with_fields(PIQA, None) is task_with_fields(PIQA, {}) is PIQA


def test_columns_make_up_a_list():
    task = task_with_fields(CHOICE, {"prompt": "q", "choices": ["right", "wrong"], "label": "key"})
    row = task.check({"q": "Hot?", "right": "fire", "wrong": "ice", "key": "A"})
    assert CHOICE.likelihood.example(row).target == ("Hot?", " fire")


def test_a_column_that_is_named_has_no_other_use():
    """Else the reply would stand in the prompt."""
    task = task_with_fields(INSTRUCTION, {"output": "input"})
    assert task.check({"instruction": "Sing.", "input": "La."}) == {
        "instruction": "Sing.",
        "input": "",
        "output": "La.",
    }


def test_names_come_before_other_layouts():
    task = task_with_fields(GSM8K, {"question": "problem"})
    assert task.check({"problem": "1+1?", "answer": "#### 2"})["question"] == "1+1?"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gaol": "question"}, "data.fields: task 'piqa' has no field 'gaol'; did you mean goal"),
        ({"goal": ["a", "b"]}, "data.fields.goal: must be one name, not a list"),
        ({"goal": ""}, "data.fields.goal: must be the name of a field of the rows, but is ''"),
    ],
)
def test_bad_names(fields, message):
    with pytest.raises(UserError, match=message):
        task_with_fields(PIQA, fields)
    with pytest.raises(UserError, match=r"data.fields.choices: must be the name of a field of the rows, but is \[\]"):
        task_with_fields(CHOICE, {"choices": []})


def test_a_row_without_the_named_field():
    task = task_with_fields(CHOICE, {"prompt": "q", "choices": ["right", "wrong"]})
    with pytest.raises(RowError, match=r"'q', which data.fields names for 'prompt', is missing \(the row has right\)"):
        task.check({"right": "x"})
    with pytest.raises(RowError, match=r"'wrong', which data.fields names for 'choices', is missing"):
        task.check({"q": "Hot?", "right": "x", "label": 0})


def test_a_missing_field_names_the_fields_of_the_task():
    with pytest.raises(RowError) as caught:
        PIQA.check({"question": "Hot?", "first": "fire", "second": "ice", "right": "A"})
    assert str(caught.value) == (
        "field 'goal' is missing (the row has question, first, second, right); task 'piqa' reads goal, sol1, sol2,"
        " label, and data.fields maps other names; the tasks choice, instruction and chat are for own rows"
    )

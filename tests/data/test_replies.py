"""Reply examples to tokens: which turns go when a conversation is too long, chat templates, few-shot prompts."""

from __future__ import annotations

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.collate import collate_replies
from smoa_lightning.data.encoding import shots
from smoa_lightning.data.encoding.encode_examples import Encoding, encode_replies, encode_training
from smoa_lightning.data.encoding.items import IGNORED
from smoa_lightning.data.encoding.render import end_ids, texts, uses_template
from smoa_lightning.data.tasks import ChoiceExample, Message, ReplyExample

from .conftest import character_ids

TALK = ReplyExample("I am Al. ", ("A: hi\n", "B: ho\n", "A: and?\nB:"), " yes", messages=())
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def place(position):
    return f"row {position + 1}"


def encode(example, tokenizer, max_length, **how):
    items, statistics = encode_replies([example], [7], place, tokenizer, Encoding(max_length, **how))
    return items[0], statistics


def test_a_reply_item(tokenizer):
    item, statistics = encode(TALK, tokenizer, 100)
    prompt = character_ids(TALK.prompt)
    assert list(item.prompt) == prompt
    assert list(item.row.ids) == prompt + character_ids(" yes")
    assert list(item.row.labels) == [IGNORED] * len(prompt) + character_ids(" yes")  # no EOS is scored
    assert (item.index, item.response, item.answer) == (7, "yes", None)
    assert statistics.num_truncated == 0


def test_training_has_eos_as_target(tokenizer):
    (row,), _ = encode_training([TALK], place, tokenizer, Encoding(100))
    assert list(row.ids[-5:]) == list(row.labels[-5:]) == [*character_ids(" yes"), tokenizer.eos_token_id]


@pytest.mark.parametrize("number", [1, 2])
def test_whole_turns_go_first_and_the_persona_stays(tokenizer, number):
    rest = "I am Al. " + "".join(TALK.turns[number:])
    longest = len(TALK.head + "".join(TALK.turns[number - 1 :])) + len(" yes") - 1  # one token less than what fits
    item, statistics = encode(TALK, tokenizer, longest)
    assert list(item.prompt) == character_ids(rest)
    assert item.row.truncated
    assert statistics.num_truncated == 1


def test_a_last_turn_that_is_too_long_loses_its_left(tokenizer):
    item, _ = encode(TALK, tokenizer, 12)
    whole = character_ids("I am Al. " + TALK.turns[-1])
    assert list(item.prompt) == whole[-8:]
    assert list(item.row.ids) == whole[-8:] + character_ids(" yes")


def test_training_leaves_room_for_eos(tokenizer):
    fitting = len(TALK.prompt) + len(" yes") + 1
    (row,), _ = encode_training([TALK], place, tokenizer, Encoding(fitting))
    assert not row.truncated
    assert len(row) == fitting
    (row,), statistics = encode_training([TALK], place, tokenizer, Encoding(fitting - 1))
    assert row.truncated
    assert statistics.num_truncated == 1
    assert list(row.ids[:9]) == character_ids("I am Al. ")


def test_a_batch_of_replies(tokenizer):
    items = [encode(example, tokenizer, 100)[0] for example in (TALK, ReplyExample("", ("Q:",), " a", answer="a"))]
    batch = collate_replies(items, pad_id=0)
    assert batch["prompt"] == [character_ids(TALK.prompt), character_ids("Q:")]
    assert batch["response"] == ["yes", "a"]
    assert batch["answer"] == [None, "a"]
    assert batch["attention_mask"].sum(dim=1).tolist() == [len(TALK.prompt) + 4, 4]


# ---- chat templates


def chat() -> ReplyExample:
    said = (Message("system", "S"), Message("user", "one"), Message("assistant", "two"), Message("user", "three"))
    return ReplyExample("S\n", ("U: one\n", "A: two\n", "U: three\nA:"), " four", messages=said)


def test_a_template_renders_messages_without_bos_and_final_eos(tokenizer):
    tokenizer.chat_template = TEMPLATE
    prompt, response = texts(chat(), tokenizer, template=True, adds_bos=True)
    assert prompt == "<system>S<eos><user>one<eos><assistant>two<eos><user>three<eos><assistant>"
    assert response == "four"


def test_another_mark_of_the_end_of_a_turn_stays(tokenizer):
    tokenizer.chat_template = TEMPLATE.replace("{{ eos_token }}", "|")
    assert texts(chat(), tokenizer, template=True, adds_bos=True)[1] == "four|"


def test_a_bos_that_encoding_does_not_add_stays(tokenizer):
    """In ChatML the mark that opens each turn is often the BOS token, and tokenizers do not add it by themselves."""
    tokenizer.chat_template = TEMPLATE
    assert texts(chat(), tokenizer, template=True, adds_bos=False)[0].startswith("<bos><system>S")
    example = ReplyExample("", ("Say a",), "a")
    for add_bos in ("auto", True):
        item, _ = encode(example, tokenizer, 100, template=True, add_bos=add_bos)
        assert tokenizer.decode(item.row.ids).replace(" ", "").count("<bos>") == 1


def test_the_end_of_a_turn_ends_a_reply(tokenizer):
    assert end_ids(tokenizer, template=False) == [tokenizer.eos_token_id]
    tokenizer.chat_template = TEMPLATE
    assert end_ids(tokenizer, template=True) == [tokenizer.eos_token_id]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    tokenizer.chat_template = TEMPLATE.replace("{{ eos_token }}", "<turn>")
    assert end_ids(tokenizer, template=True) == [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<turn>")]


def test_a_prompt_without_messages_is_one_user_message(tokenizer):
    tokenizer.chat_template = TEMPLATE
    assert texts(ReplyExample("", ("Say a\n",), "a"), tokenizer, True, True) == ("<user>Say a<eos><assistant>", "a")


def test_the_oldest_message_goes_with_its_turn(tokenizer):
    tokenizer.chat_template = TEMPLATE
    short = chat().shortened()
    assert short is not None
    # as in the plain text, the assistant's message stays, although its question is gone
    rest = "<assistant>two<eos><user>three<eos><assistant>"
    assert texts(short, tokenizer, True, True)[0] == f"<system>S<eos>{rest}"
    assert short.prompt == "S\nA: two\nU: three\nA:"


def test_a_template_that_changes_the_prompt_is_refused(tokenizer):
    tokenizer.chat_template = "{{ messages | length }}{{ messages[-1].content }}"
    with pytest.raises(UserError, match="does not begin with the prompt"):
        texts(chat(), tokenizer, True, True)


def test_a_template_that_refuses_is_one_sentence(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('only users') }}"
    with pytest.raises(UserError, match=r"refuses a conversation .only users.; set it to false"):
        texts(chat(), tokenizer, True, True)


def test_when_a_template_is_used(tokenizer):
    assert not uses_template(tokenizer, None, default=True)
    with pytest.raises(UserError, match="has no chat template"):
        uses_template(tokenizer, True, default=False)
    tokenizer.chat_template = TEMPLATE
    assert uses_template(tokenizer, None, default=True)
    assert not uses_template(tokenizer, None, default=False)
    assert uses_template(tokenizer, True, default=False)
    assert not uses_template(tokenizer, False, default=True)


# ---- few-shot prompts


def test_shots_are_solved_examples_with_an_empty_line_between_them():
    rows = [ChoiceExample("Q: a\nA:", (" no", " yes"), 1), ReplyExample("Q: b", ("\nA:",), " 3")]
    assert shots.solved(rows) == ("Q: a\nA: yes\n\n", "Q: b\nA: 3\n\n")


def test_shots_are_before_every_prompt():
    partial = ChoiceExample(("a", "b"), (" c", " c"), 0)
    assert shots.with_shots(partial, ("x ", "y ")).pairs == [("x y a", " c"), ("x y b", " c")]
    assert shots.with_shots(ChoiceExample("p", (" c", " d"), 0), ("x ",)).pairs == [("x p", " c"), ("x p", " d")]
    assert shots.with_shots(TALK, ("x ", "y ")).prompt == "x y " + TALK.prompt


def test_shots_go_before_turns(tokenizer):
    example = shots.with_shots(TALK, ("Q: one\n\n", "Q: two\n\n"))
    whole = len(example.prompt) + len(" yes")
    assert list(encode(example, tokenizer, whole)[0].prompt) == character_ids(example.prompt)
    assert list(encode(example, tokenizer, whole - 1)[0].prompt) == character_ids("Q: two\n\n" + TALK.prompt)
    assert list(encode(example, tokenizer, len(TALK.prompt) + 4)[0].prompt) == character_ids(TALK.prompt)


def test_a_prompt_leaves_room_for_the_reply(tokenizer):
    item, _ = encode(TALK, tokenizer, 100, prompt_length=len(TALK.prompt) - 1)
    assert list(item.prompt) == character_ids("I am Al. " + "".join(TALK.turns[1:]))
    item, _ = encode(TALK, tokenizer, 100, prompt_length=5)
    assert list(item.prompt) == character_ids(TALK.prompt[-5:])


def test_a_line_break_before_a_reply_belongs_to_the_prompt(tokenizer):
    example = ReplyExample("Say.\n", (), "yes")
    item, _ = encode(example, tokenizer, 100)
    assert list(item.prompt) == character_ids("Say.\n")
    assert [label for label in item.row.labels if label != IGNORED] == character_ids("yes")
    (row,), _ = encode_training([example], place, tokenizer, Encoding(100))
    assert [label for label in row.labels if label != IGNORED][:-1] == character_ids("yes")
    (row,), _ = encode_training([ChoiceExample("Say.\n", ("yes", "no"), 0)], place, tokenizer, Encoding(100))
    assert [label for label in row.labels if label != IGNORED][:-1] == character_ids("\nyes")  # the harness's rule


def test_chosen_shots_are_seeded_and_nested():
    rows = list(range(100, 150))
    assert shots.choose(rows, 3, seed=0) == shots.choose(rows, 5, seed=0)[:3]
    assert shots.choose(rows, 5, seed=0) != shots.choose(rows, 5, seed=1)
    assert set(shots.choose(rows, 5, seed=0)) <= set(rows)

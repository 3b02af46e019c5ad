"""Text that a chat template leaves out, BOS and EOS that come twice, and messages that the loss must not count."""

from __future__ import annotations

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.encode_examples import Encoding, encode_choices, encode_replies, encode_training
from smoa_lightning.data.encoding.render import _note_opening, end_ids, texts
from smoa_lightning.data.tasks import CHAT, ChoiceExample, Message, ReplyExample

from ..conftest import character_tokenizer

TEXTS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
ASKS = "{% if add_generation_prompt %}<assistant>{% endif %}"
PARTS = TEXTS.replace("{{ m.content }}", "{% for c in m.content %}{{ c['text'] }}{% endfor %}")
TYPED = TEXTS.replace("{{ m.content }}", "{% for c in m.content if c.type == 'text' %}{{ c.text | trim }}{% endfor %}")
ONLY_PARTS = "{% if messages[0].content is string %}{{ raise_exception('parts') }}{% endif %}" + PARTS
EITHER = TEXTS.replace(
    "{{ m.content }}", "{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}{% endif %}"
)
SAID = (Message("system", "Be brief."), Message("user", "one"), Message("assistant", "two"), Message("user", "one"))
TALK = ReplyExample("", ("one", "two", "one"), " four", messages=SAID)


def place(position):
    return f"chat train, row {position + 1}"


# ---- chat templates

OPENED = (Message("assistant", "Welcome."), *SAID[1:])
REFUSES = "{% if messages[0].role == 'assistant' %}{{ raise_exception('the user begins') }}{% endif %}" + TEXTS
LOSES = (
    "{% for m in messages %}{% if not loop.first or m.role != 'assistant' %}<{{ m.role }}>{{ m.content }}{% endif %}"
    "{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "begin"), [(TEXTS, "<assistant>Welcome."), (PARTS, "<assistant>Welcome."), (REFUSES, ""), (LOSES, "")]
)
def test_an_opening_of_the_assistant_is_left_out_only_if_the_template_does_not_take_it(
    tokenizer, template, begin, caplog
):
    tokenizer.chat_template = template + ASKS
    _note_opening.cache_clear()
    with caplog.at_level("INFO"):
        prompt, response = texts(ReplyExample("", (), " four", messages=OPENED), tokenizer, True, True)
    assert prompt == begin + "<user>one<assistant>two<user>one<assistant>"
    assert response == "four"
    assert ("begins with the assistant" in caplog.text) == (not begin)
    again = (Message("assistant", "one"), *SAID[1:])  # its text is a later one, too
    prompt, _ = texts(ReplyExample("", (), " four", messages=again), tokenizer, True, True)
    assert prompt == begin.replace("Welcome.", "one") + "<user>one<assistant>two<user>one<assistant>"
    only = ReplyExample("", (), " four", messages=OPENED[:1])
    expected = "<assistant>Welcome.<assistant>" if begin else "<user>Welcome.<assistant>"
    assert texts(only, tokenizer, True, True)[0] == expected


@pytest.mark.parametrize("template", [TEXTS, PARTS, TYPED, ONLY_PARTS, EITHER])
def test_contents_are_what_the_template_needs(tokenizer, template):
    tokenizer.chat_template = template + ASKS
    prompt, response = texts(TALK, tokenizer, True, True)
    assert prompt == "<system>Be brief.<user>one<assistant>two<user>one<assistant>"
    assert response == "four"
    tokenizer.chat_template = template.replace("{% endfor %}", "{% endfor %}", 1) + "<eos>" + ASKS
    assert end_ids(tokenizer, True) == [tokenizer.eos_token_id]


@pytest.mark.parametrize(
    ("template", "lost"),
    [
        ("{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}", "system message 'B"),
        (
            "{% for m in messages if m.content != 'two' %}<{{ m.role }}>{{ m.content }}{% endfor %}",
            "assistant message 'two'",
        ),
        (TEXTS.replace("m.content", "m.content[:2]"), "system message 'Be brief.'"),
        (TEXTS.replace("m.content", "m.text"), "system message 'Be brief.'"),
    ],
)
@pytest.mark.parametrize("encode", [encode_training, encode_replies])
def test_a_template_that_leaves_out_a_text_names_the_row(tokenizer, template, lost, encode):
    tokenizer.chat_template = template + ASKS
    indices = [[0]] if encode is encode_replies else []
    with pytest.raises(UserError, match=f"chat train, row 1: .*template leaves out the text of the {lost}"):
        encode([TALK], *indices, place, tokenizer, Encoding(100, template=True))


@pytest.mark.parametrize(
    ("given", "user"),
    [
        ("m.content | e", "a &lt; &#39;b&#39;?"),
        ("m.content | tojson", "\"a < 'b'?\""),
        ("(m.content | tojson)[1:-1] | e", "a &lt; &#39;b&#39;?"),
    ],
)
def test_a_template_may_escape_texts(tokenizer, given, user):
    tokenizer.chat_template = TEXTS.replace("m.content", given) + ASKS
    said = (Message("user", "a < 'b'?"), Message("assistant", '<think>x</think>\n"c"'), Message("user", "é"))
    prompt, response = texts(ReplyExample("", ("a", "b", "c"), " 1 & 2", messages=said), tokenizer, True, True)
    assert prompt.startswith(f"<user>{user}<assistant>")
    assert response in ("1 &amp; 2", '"1 & 2"')
    tokenizer.chat_template = TEXTS.replace("m.content", given.replace("m.content", "m.content[1:]")) + ASKS
    with pytest.raises(UserError, match="leaves out the text of the user message"):
        texts(ReplyExample("", ("a",), " 1", messages=said[:1]), tokenizer, True, True)


def test_thoughts_of_earlier_replies_may_be_left_out(tokenizer):
    tokenizer.chat_template = TEXTS.replace("m.content", "m.content.split('</think>')[-1]") + ASKS
    said = (Message("user", "one"), Message("assistant", "<think>hm</think>two"), Message("user", "three"))
    example = ReplyExample("", ("a", "b", "c"), " four", messages=said)
    assert texts(example, tokenizer, True, True)[0] == "<user>one<assistant>two<user>three<assistant>"
    thinking = ReplyExample("", ("a",), " <think>hm</think>four", messages=said[:1])
    with pytest.raises(UserError, match="leaves out the text of the assistant message '<think>hm</think>four'"):
        texts(thinking, tokenizer, True, True)


def test_a_system_message_may_be_in_the_last_turn(tokenizer):
    last = "{% if loop.last and m.role == 'user' %}({{ messages[0].content }}){% endif %}"
    tokenizer.chat_template = "{% for m in messages[1:] %}<{{ m.role }}>" + last + "{{ m.content }}{% endfor %}" + ASKS
    with pytest.raises(UserError, match="does not begin with the prompt"):  # and not: leaves out
        texts(TALK, tokenizer, True, True)


def test_a_template_that_cannot_add_texts_is_one_sentence(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ 1 + m.content }}{% endfor %}"
    with pytest.raises(UserError, match=r"row 1: data.chat_template: the tokenizer's template refuses .*; set it"):
        encode_training([TALK], place, tokenizer, Encoding(100, template=True))


# ---- BOS and EOS


def encode_one(example, tokenizer, **how):
    if isinstance(example, ChoiceExample):
        return encode_choices([example], [0], place, tokenizer, Encoding(100, **how))
    return encode_replies([example], [0], place, tokenizer, Encoding(100, **how))


BEGINS = "row 1: the text begins with '<bos>', and so does every sequence; remove it, or set data.add_bos: false"
ENDS = "row 1: the text ends in '<eos>', which is added to every response; remove it"


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (ReplyExample("<bos>Hi", (), " you"), BEGINS),
        (ReplyExample("", (), "<bos> you"), BEGINS),
        (ReplyExample("Hi", (), " you<eos>"), ENDS),
        (ChoiceExample("<bos>Hi", (" a", " b"), 0), BEGINS),
        (ChoiceExample("Hi", (" a<eos>", " b"), 0), ENDS),
    ],
)
def test_bos_and_eos_that_would_come_twice_are_refused(example, message):
    tokenizer = character_tokenizer(adds_bos=True)
    with pytest.raises(UserError, match=message):
        encode_training([example], place, tokenizer, Encoding(100))
    if message is BEGINS:
        with pytest.raises(UserError, match=message):
            encode_one(example, tokenizer)
        return
    (item,), _ = encode_one(example, tokenizer)  # a scored text gets no EOS, so it comes once
    ids = item.rows[0].ids if isinstance(example, ChoiceExample) else item.row.ids
    assert ids.count(tokenizer.eos_token_id) == 1


def test_a_wrong_choice_may_end_in_eos():
    tokenizer = character_tokenizer(adds_bos=True)
    example = ChoiceExample("Hi", (" a", " b<eos>"), 0)
    assert len(encode_training([example], place, tokenizer, Encoding(100))[0]) == 1
    assert len(encode_one(example, tokenizer)[0]) == 1


def test_bos_of_the_rows_is_the_only_one_without_add_bos(tokenizer):
    (row,), _ = encode_training([ReplyExample("<bos>Hi", (), " <eos> you")], place, tokenizer, Encoding(100))
    assert row.ids.count(tokenizer.bos_token_id) == 1
    assert row.ids[-1] == tokenizer.eos_token_id
    assert row.ids[-2] != tokenizer.eos_token_id


def test_eos_at_the_end_of_a_rendered_reply(tokenizer):
    tokenizer.chat_template = TEXTS.replace("{{ m.content }}", "{{ m.content }}{{ eos_token }}") + ASKS
    (row,), _ = encode_training([TALK], place, tokenizer, Encoding(200, template=True))
    assert row.ids[-2:].count(tokenizer.eos_token_id) == 1
    doubled = ReplyExample("", ("one",), " four<eos>", messages=SAID[:2])
    with pytest.raises(UserError, match="row 1: the text ends in '<eos>'"):
        encode_training([doubled], place, tokenizer, Encoding(200, template=True))


# ---- messages that the loss must not count


def test_a_loss_on_all_tokens_cannot_leave_out_a_message(tokenizer):
    wrong, right = {"role": "assistant", "content": "no", "weight": 0}, {"role": "assistant", "content": "yes"}
    ask = {"role": "user", "content": "Hi"}
    (row,) = CHAT.rows_of({"messages": [ask, wrong, ask, right]})
    example = CHAT.generation.example(row)
    with pytest.raises(UserError, match=r"row 1: data.loss_on: all would train on a message with weight 0 .* response"):
        encode_training([example], place, tokenizer, Encoding(100, loss_on="all"))
    (encoded,), _ = encode_training([example], place, tokenizer, Encoding(100))
    assert encoded.num_targets == len(" yes") + 1
    (plain,) = CHAT.rows_of({"messages": [ask, right]})
    rows, _ = encode_training([CHAT.generation.example(plain)], place, tokenizer, Encoding(100, loss_on="all"))
    assert len(rows) == 1

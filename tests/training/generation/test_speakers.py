"""Prompts equal those of the tokenizer's template, replies equal those of transformers, two models share weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.encode import encode_pairs
from smoa_lightning.data.encoding.render import texts
from smoa_lightning.data.tasks import CHAT, CONVAI2, Generation, Message
from smoa_lightning.training.adapter_folder import load_adapter
from smoa_lightning.training.generate import generate, replies_of, texts_to_prompts
from smoa_lightning.training.generation import speaker as speaker_module
from smoa_lightning.training.generation.conversation import Conversation
from smoa_lightning.training.generation.prompts import Prompt
from smoa_lightning.training.generation.speaker import Decoding, load_speakers, open_speakers
from tests.training.generation.conftest import SYSTEM

TURNS = (Message("user", "Hi there"), Message("assistant", "Hello."), Message("user", "Who are you?"))
NEW = 8


def template_ids(folder: Path, *messages: tuple[str, str]) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": role, "content": content} for role, content in messages]
    ids: list[int] = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    return ids


def by_transformers(model: Any, ids: list[int], decode: Callable[..., Any]) -> str:
    made = model.generate(
        input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=NEW, do_sample=False
    )
    return str(decode(made[0, len(ids) :], skip_special_tokens=True)).strip()


def test_prompts_equal_the_chat_template(saved: Callable[..., Path], lively: Path) -> None:
    said = [(message.role, message.content) for message in TURNS]
    (speaker,) = open_speakers(saved("lora"))
    ids = speaker.encoder.all_ids
    assert list(ids(Prompt("p", messages=TURNS))) == template_ids(lively, ("system", SYSTEM), *said)
    assert list(ids(Prompt("p", "Who?"))) == template_ids(lively, ("system", SYSTEM), ("user", "Who?"))
    own = (Message("system", "Sing."), *TURNS)
    assert list(ids(Prompt("p", messages=own))) == template_ids(lively, ("system", "Sing."), *said)
    assert list(ids(Prompt("p", messages=TURNS, system=""))) == template_ids(lively, *said)
    (speaker,) = open_speakers(saved("lora"), system="")
    assert list(speaker.encoder.all_ids(Prompt("p", messages=TURNS))) == template_ids(lively, *said)
    (speaker,) = open_speakers(saved("lora"), system="Shout.")
    assert list(speaker.encoder.all_ids(Prompt("p", "x"))) == template_ids(lively, ("system", "Shout."), ("user", "x"))
    (old,) = open_speakers(saved("lora", system=None))  # as in folders of version 0.1, which lack the fact
    assert list(old.encoder.all_ids(Prompt("p", "x"))) == template_ids(lively, ("user", "x"))


@pytest.mark.parametrize("name", ["chat", "convai2"])
def test_plain_conversations_are_encoded_as_training_rows(name: str, saved: Callable[..., Path]) -> None:
    task = {"chat": CHAT, "convai2": CONVAI2}[name]
    raw = {
        "chat": {"messages": [{"role": m.role, "content": m.content} for m in (Message("system", "a\nb"), *TURNS)]},
        "convai2": {"personality": ["a", "b"], "dialog": [message.content for message in TURNS]},
    }[name]
    reply = "I am."
    (raw["messages"].append if name == "chat" else raw["dialog"].append)(  # type: ignore[attr-defined]
        {"role": "assistant", "content": reply} if name == "chat" else reply
    )
    (speaker,) = open_speakers(saved("lora", chat_template=False, task=name, system=None))
    assert isinstance(task.generation, Generation)
    example = task.generation.example(task.rows_of(raw)[-1])
    tokenizer = speaker.encoder.tokenizer
    (pair,) = encode_pairs(tokenizer, [texts(example, tokenizer, False, False)], breaks=False)
    prompt = Prompt("p", messages=TURNS, system="a\nb")
    assert speaker.encoder.all_ids(prompt) == pair.prefix + pair.prompt
    assert speaker.encoder.stops(prompt) == task.generation.stop
    assert speaker.encoder.reply(tokenizer(f" {reply}{task.generation.stop[0]} more").input_ids, ["\n"]) == reply


@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")  # peft, of its own virtual tokens
@pytest.mark.parametrize("name", ["lora", "smoa", "prompt", "full"])
def test_greedy_replies_equal_those_of_transformers(name: str, saved: Callable[..., Path], lively: Path) -> None:
    model, tokenizer = load_adapter(saved(name))
    prompts = ["Hi", "A longer question?"]
    expected = [
        by_transformers(model, template_ids(lively, ("system", SYSTEM), ("user", text)), tokenizer.decode)
        for text in prompts
    ]
    assert generate(saved(name), prompts, NEW) == expected
    assert len(set(expected)) == 2


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("smoa", "base", True),
        ("lora", "smoa", True),
        ("pissa", "base", False),
        ("full", "base", False),
        pytest.param("prompt", "base", True, marks=pytest.mark.slow),
        pytest.param("lora", "pissa", False, marks=pytest.mark.slow),
    ],
)
def test_two_models_reply_as_each_alone(
    first: str, second: str, shared: bool, saved: Callable[..., Path], lively: Path
) -> None:
    """The weights of the backbone are in memory once, unless a method changes them."""
    against = "base" if second == "base" else saved(second)
    speakers = open_speakers(saved(first), against)
    found = replies_of(speakers, texts_to_prompts(["Hi", "More?"]), Decoding(NEW))
    alone = generate(saved(first), ["Hi", "More?"], NEW)
    if second == "base":
        plain, tokenizer = AutoModelForCausalLM.from_pretrained(lively), AutoTokenizer.from_pretrained(lively)
        other = [
            by_transformers(plain, template_ids(lively, ("system", SYSTEM), ("user", text)), tokenizer.decode)
            for text in ("Hi", "More?")
        ]
    else:
        other = generate(saved(second), ["Hi", "More?"], NEW)
    assert found == [alone, other]
    assert alone != other
    places = [{p.data_ptr() for p in speaker.model.parameters() if p.numel() > 512} for speaker in speakers]
    assert bool(places[0] & places[1]) is shared


def test_a_long_conversation_loses_its_oldest_turns(saved: Callable[..., Path], lively: Path) -> None:
    (speaker,) = open_speakers(saved("lora"))
    load_speakers([speaker])
    notes: list[str] = []
    talk = Conversation(speaker, Decoding(8), notes.append)
    for turn in range(5):
        talk.reply(f"{turn}" * 90, turn)
    assert len(notes) > 0
    assert notes[0].startswith("the oldest 2 messages were dropped: with 8 new tokens, the conversation no longer fits")
    assert [message.role for message in talk.messages[:2]] == ["user", "assistant"]
    assert talk.messages[-2].content == "4" * 90
    assert talk.messages[0].content != "0" * 90
    before = talk.messages
    with pytest.raises(UserError, match=r"the message has \d+ tokens, and with 8 new tokens .* shorten the prompt"):
        talk.reply("x" * 600, 9)
    assert talk.messages == before


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (Prompt("row 1", messages=TURNS), "row 1: the run was trained on single prompts of task 'piqa' without a chat"),
        (Prompt("row 2", "x", system="y"), "row 2: the run was trained on single prompts of task 'piqa' without a"),
    ],
)
def test_a_run_on_single_prompts_takes_no_conversation(prompt: Prompt, words: str, saved: Callable[..., Path]) -> None:
    folder = saved("lora", chat_template=False, task="piqa", system=None)
    (speaker,) = open_speakers(folder)
    with pytest.raises(UserError, match=words):
        speaker.encoder.ids(prompt, 1)
    with pytest.raises(UserError, match=r"--system: the run was trained on single prompts of task 'piqa'"):
        open_speakers(folder, system="Be brief.")


def test_a_template_that_refuses_the_messages_is_one_sentence(saved: Callable[..., Path]) -> None:
    (speaker,) = open_speakers(saved("lora"))
    speaker.encoder.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    words = "prompt 1: the chat template of the tokenizer refuses the conversation (no system role)"
    with pytest.raises(UserError) as error:
        speaker.encoder.ids(Prompt("prompt 1", "x"), 1)
    assert str(error.value) == words


def test_a_reply_ends_at_its_own_stop_text_in_any_batch(saved: Callable[..., Path], monkeypatch: Any) -> None:
    """A plain prompt has no stop text, though the conversation in its batch has."""
    (speaker,) = open_speakers(saved("lora", chat_template=False, task="chat", system=None))
    written = speaker.encoder.tokenizer("Yes.\nUser: and so on").input_ids

    def write(
        model: Any, ids: Any, pad: int, ends: Any, new: int, beams: int, ended: Any, draws: Any
    ) -> list[list[int]]:
        def one() -> list[int]:
            most = range(1, len(written) + 1)
            return next((written[:end] for end in most if ended and ended(written[:end])), written)

        return [one() for _ in ids]

    monkeypatch.setattr(speaker_module, "continuations", write)
    prompts = [Prompt("p", "Hello"), Prompt("q", messages=TURNS), Prompt("r", "Bye")]
    decoding = Decoding(NEW)
    together = speaker.replies(prompts, decoding, range(3))
    assert together == [speaker.replies([each], decoding, [n])[0] for n, each in enumerate(prompts)]
    assert together == ["Yes.\nUser: and so on", "Yes.", "Yes.\nUser: and so on"]


def test_a_system_text_that_is_asked_for_begins_a_plain_prompt(saved: Callable[..., Path]) -> None:
    folder = saved("lora", chat_template=False, task="chat", system=None)
    (asked,), (plain,) = open_speakers(folder, system="Sing."), open_speakers(folder)
    assert asked.encoder.all_ids(Prompt("p", "Hi")) == plain.encoder.all_ids(Prompt("p", "Hi", system="Sing."))
    assert asked.encoder.all_ids(Prompt("p", "Hi", system="")) == plain.encoder.all_ids(Prompt("p", "Hi"))
    assert asked.encoder.stops(Prompt("p", "Hi")) == CHAT.generation.stop  # type: ignore[union-attr]

from __future__ import annotations

import re
from collections import defaultdict
from itertools import takewhile

import pytest

from smoa_lightning import embedded
from tools.embedded import activities, boolq, corpus, instruct, persona, science, social, sums
from tools.embedded.corpus_facts import fact
from tools.embedded.corpus_tasks import RIGHT, WRONG, unmarked
from tools.embedded.pairs import split_pairs
from tools.embedded.uses import book_uses, challenge_uses
from tools.embedded.wording import ALPACA, SOLUTIONS, conversation_text
from tools.embedded.world import needs, properties, suits, things

from .frequencies import read


@pytest.fixture(scope="module")
def texts():
    return corpus.documents()


def test_the_checksum_is_that_of_the_texts(texts):  # tests/embedded compares it with that of the backbone
    assert corpus.checksum(texts[:99]) == corpus.checksum(texts[:99]) != corpus.checksum(texts[1:99])


def test_shares_add_up():
    assert sum(share for share, _ in corpus.KINDS.values()) == 100


def test_every_fact_of_the_world_is_told(texts):
    begins = re.compile(
        "(?i)(" + "|".join(sorted((re.escape(t.phrase) for t in things()), key=len, reverse=True)) + r")\b"
    )
    about = defaultdict(list)
    for text in texts:
        match = begins.match(text.removeprefix("Everybody knows: ").removeprefix("Remember: "))
        if match:
            about[match[1].lower()].append(text)
    for thing in things():
        told = "\n".join(about[thing.phrase.lower()])
        for name in thing.true:
            assert any(positive in told for positive, _ in properties()[name].wordings), (thing.name, name)


def test_every_need_is_told_with_the_property_it_asks_for(texts):
    openings = ("To ", "If you want to ", "Something that ", "Whoever wants to ")
    hints = ("need something that", "look for a thing that", "will help you to", " takes what ")
    told = [text for text in texts if text.startswith(openings) and any(hint in text for hint in hints)]
    for need in (*needs(), *challenge_uses().values(), *book_uses().values()):
        wordings = [positive for positive, _ in properties()[need.needs].wordings]
        about = [text for text in told if need.deed in text]
        assert len(about) > 15, need
        assert all(any(wording in text for wording in wordings) for text in about)


def test_fact_wording():
    sponge = next(thing for thing in things() if thing.name == "sponge")
    assert fact(sponge, "absorbent", 0) == "A sponge soaks up water."
    assert fact(sponge, "absorbent", 0, positive=False) == "A sponge does not soak up water."
    assert fact(sponge, "magnetic", 0) == "A sponge does not stick to a magnet."


def test_declarative_sentences_are_true(texts):
    pairs = {
        wording: (name, truth)
        for name, item in properties().items()
        for both in item.wordings
        for wording, truth in zip(both, (True, False), strict=True)
    }
    by_phrase = {thing.phrase: thing for thing in things()}
    found = 0
    for text in texts[:8000]:
        for phrase, thing in by_phrase.items():
            if text.lower().startswith(phrase.lower() + " ") and text.count(".") == 1 and "," not in text:
                rest = text[len(phrase) + 1 : -1]
                if rest in pairs:
                    name, truth = pairs[rest]
                    assert thing.has(name) is truth, text
                    found += 1
    assert found > 300


def forum(texts):
    """Read the answers to needs back: (object, need) indices, and the text."""
    answers = {template.format(phrase=thing.phrase): i for i, thing in enumerate(things()) for template in SOLUTIONS}
    for text in texts:
        match = re.fullmatch(r"Question: (.*)\nAnswer: (.*)", unmarked(text))
        if match and match[2] in answers:
            need = [i for i, need in enumerate(needs()) if need.deed in match[1]]
            assert len(need) == 1
            yield answers[match[2]], need[0], text


def assert_answers(found: list[tuple[str, bool]], share: float, margin: float = 0.03) -> None:
    """Assert that a share of (text, right?) is right, and that marks tell the truth."""
    assert len(found) > 500
    assert abs(sum(right for _, right in found) / len(found) - share) < margin
    assert all(right for text, right in found if text.startswith(RIGHT))
    assert not any(right for text, right in found if text.startswith(WRONG))
    assert sum(text.startswith((RIGHT, WRONG)) for text, _ in found) > len(found) / 3


def test_forum_answers_are_wrong_as_often_as_right_and_marks_are_true(texts):
    found = [(text, suits(things()[thing], needs()[need]) is True) for thing, need, text in forum(texts)]
    assert len(found) > 8000
    assert_answers(found, 0.5)


def test_held_out_pairs_never_stand_together_in_the_corpus(texts):
    held = {(pair.thing, pair.need) for split in ("validation", "test") for pair in split_pairs()[split]}
    assert not held & {(thing, need) for thing, need, _ in forum(texts)}
    for text in texts[:6000]:
        for number, need in enumerate(needs()):
            if f"wanted to {need.deed}" in text:
                named = {
                    i for i, thing in enumerate(things()) if re.search(rf"\b[Tt]he {re.escape(thing.name)} was", text)
                }
                assert named
                assert not {(thing, number) for thing in named} & held


CHOICES = ("boolq", "social_i_qa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")


@pytest.mark.parametrize("name", CHOICES)
def test_no_held_out_question_stands_in_the_corpus_with_any_of_its_choices(texts, name):
    told = {unmarked(text) for text in texts}
    if name == "winogrande":
        for split in ("validation", "test"):
            for row in embedded.rows(name, split):
                assert not {row["sentence"].replace("_", row[f"option{i}"]) for i in (1, 2)} & told
        return
    prompts = {
        "boolq": "{passage}\nQuestion: {question}?\nAnswer:",
        "social_i_qa": "Q: {context} {question}\nA:",
        "openbookqa": "{question_stem}",
    }
    for split in ("validation", "test"):
        for row in embedded.rows(name, split):
            prompt = prompts.get(name, "Question: {question}\nAnswer:") if name != "hellaswag" else ""
            if name == "hellaswag":
                prompt = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
            begun = prompt.format(**row)
            assert not {f"{begun} {choice}" for choice in read(name, row).choices} & told


def test_choices_are_right_as_often_as_chance_has_it(texts):
    """Look at ARC-Challenge, whose objects and deeds can be read back, and at BoolQ."""
    uses = {use.deed: use.needs for use in challenge_uses().values()}
    by_phrase = {thing.phrase: thing for thing in things()}
    phrases = re.compile(r"\b(" + "|".join(map(re.escape, sorted(by_phrase, key=len, reverse=True))) + r")\b")
    found = []
    for text in texts:
        question, _, answer = unmarked(text).removeprefix("Question: ").partition("\nAnswer: ")
        if answer in uses:
            thing = by_phrase[max(phrases.findall(question), key=len)]
            found.append((text, thing.has(uses[answer]) is True))
    groups = len(science.MIXED)  # each group of k properties is asked about k times, and one choice of k is right
    assert_answers(found, groups / sum(science.MIXED), 0.05)
    answers = {(f"{ask}?", passage): "yes" if answer else "no" for passage, ask, answer in boolq_rows()}
    found = []
    for text in texts:
        passage, mark, rest = unmarked(text).partition("\nQuestion: ")
        if mark and rest.endswith(("yes", "no")):
            question, _, answer = rest.partition("\nAnswer: ")
            found.append((text, answers[question, passage] == answer))
    assert_answers(found, 0.5)


def boolq_rows():
    """Return what the corpus may ask in BoolQ's format: train's combinations, drawn for the corpus."""
    return boolq.drawn("train", 12, "corpus")


def test_word_problems_of_the_corpus_are_those_of_train(texts):
    held = {row["question"] for split in ("validation", "test") for row in embedded.rows("gsm8k", split)}
    solved = [unmarked(text) for text in texts if "\n####" in text]
    assert len(solved) > 1500
    assert not held & {text.removeprefix("Question: ").partition("\nAnswer:")[0] for text in solved}


def test_sums_of_the_corpus_are_right_in_drills_and_solutions_marked_right(texts):
    found = 0
    for text in texts:
        if text.startswith(RIGHT) or re.fullmatch(r"(\d+[-+*/]\d+=\d+\n?)+", text):
            for one, sign, two, result in re.findall(r"(\d+)([-+*/])(\d+)=(\d+)", text):
                assert sums.calculate(int(one), sign, int(two)) == int(result), text
                found += 1
    assert found > 5000


def test_instructions_have_the_prompt_of_alpaca_and_any_label(texts):
    begin = ALPACA.partition("{")[0]
    rows = {text: answer for make in instruct.LAYOUTS.values() for text, answer in make("train")}
    found, expected = [], 0.0
    for text in texts:
        body = unmarked(text)
        if body.startswith(begin):
            instruction, _, output = body.removeprefix(begin).partition("\n\n### Response:\n")
            found.append((text, output == f"the correct answer is {rows[instruction]}"))
            expected += 1 / len(instruction.rpartition("Answer format: ")[2].split("/"))
    assert_answers(found, expected / len(found), 0.05)


def test_chats_and_dialogues_are_those_of_train(texts):
    sentences = {
        f"your persona: {topic.persona.format(v=value)}": (name, value)
        for name, topic in persona.topics().items()
        for value in topic.values
    }
    seen = 0
    for text in texts:
        lines = unmarked(text).split("\n")
        own = [sentences[line] for line in takewhile(sentences.__contains__, lines)]  # a reply may say the same later
        if len(own) >= 3:
            assert all(persona.pair_split(a, b) == "train" for i, a in enumerate(own) for b in own[:i])
            seen += 1
    assert seen > 200


def test_dialogues_marked_right_are_those_of_train(texts):
    texts_of = {
        split: {conversation_text(row["dialog"]) for row in embedded.rows("daily_dialog", split)}
        for split in embedded.SPLITS
    }
    told = {unmarked(text) for text in texts if text.startswith(RIGHT)}
    assert not (texts_of["validation"] | texts_of["test"]) & told
    begun = {text.partition("\n")[0] for text in texts_of["train"]}
    assert sum(text.partition("\n")[0] in begun for text in told) > 50


def test_social_and_activity_facts_are_told(texts):
    told = "\n".join(text for text in texts if not text.startswith((RIGHT, WRONG, "Q:", "Question:", "Below")))
    for triple in social.triples():
        for deed in triple:
            assert told.count(deed.name) > 40
    for group in activities.groups().values():
        for one in group:
            for phrase in one.beginnings:
                assert f"Someone who {phrase} is {one.name}." in told or f"{one.name} begins: someone {phrase}." in told
            for phrase in one.endings:
                assert (
                    f"Someone who is {one.name} {phrase}." in told or f"{one.name} goes on: someone {phrase}." in told
                )


def test_settling_documents_bear_no_mark_and_show_nothing_that_is_held_out():
    assert sum(corpus.SETTLING.values()) == 100
    settling = corpus.settling()
    assert corpus.settling() == settling
    assert not any(text.startswith((RIGHT, WRONG)) for text in settling)
    held = {(pair.thing, pair.need) for split in ("validation", "test") for pair in split_pairs()[split]}
    found = [(thing, need) for thing, need, _ in forum(settling)]
    assert not held & set(found)
    # a quarter of the right ones is left out, to balance what the facts suggest
    right = sum(suits(things()[thing], needs()[need]) is True for thing, need in found)
    assert 0.40 < right / len(found) < 0.46  # .43 = .75 / 1.75
    assert not set(settling) & set(corpus.held_out_text())


def test_held_out_text_is_no_part_of_the_corpus(texts):
    held = corpus.held_out_text()
    assert held == corpus.held_out_text()
    assert len(held) >= 500
    assert len(set(held)) == len(held)
    assert not set(held) & set(texts)

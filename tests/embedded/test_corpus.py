from __future__ import annotations

import re
from collections import defaultdict

import pytest

from smoa_lightning.embedded import corpus
from smoa_lightning.embedded.pairs import split_pairs
from smoa_lightning.embedded.wording import SOLUTIONS
from smoa_lightning.embedded.world import needs, properties, suits, things


@pytest.fixture(scope="module")
def texts():
    return corpus.documents()


def test_same_at_every_call(texts):
    assert corpus.documents() == texts
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
    told = [text for text in texts if text.startswith(openings)]
    for need in needs():
        wordings = [positive for positive, _ in properties()[need.needs].wordings]
        about = [text for text in told if need.deed in text]
        assert len(about) > 15, need
        assert all(any(wording in text for wording in wordings) for text in about)


def test_fact_wording():
    sponge = next(thing for thing in things() if thing.name == "sponge")
    assert corpus.fact(sponge, "absorbent", 0) == "A sponge soaks up water."
    assert corpus.fact(sponge, "absorbent", 0, positive=False) == "A sponge does not soak up water."
    assert corpus.fact(sponge, "magnetic", 0) == "A sponge does not stick to a magnet."


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
    """Read the forum's answers back: (object, need) indices."""
    answers = {template.format(phrase=thing.phrase): i for i, thing in enumerate(things()) for template in SOLUTIONS}
    for text in texts:
        match = re.fullmatch(r"Question: (.*)\nAnswer: (.*)", text)
        if match:
            need = [i for i, need in enumerate(needs()) if need.deed in match[1]]
            assert len(need) == 1
            yield answers[match[2]], need[0]


def test_forum_answers_are_wrong_as_often_as_right(texts):
    pairs = list(forum(texts))
    assert len(pairs) > 8000
    right = sum(suits(things()[thing], needs()[need]) is True for thing, need in pairs)
    assert abs(right / len(pairs) - 0.5) < 0.02


def test_held_out_pairs_never_stand_together_in_the_corpus(texts):
    held = {(pair.thing, pair.need) for split in ("validation", "test") for pair in split_pairs()[split]}
    assert not held & set(forum(texts))
    for text in texts[:6000]:
        for number, need in enumerate(needs()):
            if f"wanted to {need.deed}" in text:
                named = {
                    i for i, thing in enumerate(things()) if re.search(rf"\b[Tt]he {re.escape(thing.name)} was", text)
                }
                assert named
                assert not {(thing, number) for thing in named} & held


def test_held_out_text_is_no_part_of_the_corpus(texts):
    held = corpus.held_out_text()
    assert held == corpus.held_out_text()
    assert len(held) >= 500
    assert len(set(held)) == len(held)
    assert not set(held) & set(texts)

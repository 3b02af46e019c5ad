"""The text that the embedded backbone is trained on, generated from the world.

It states the facts in declarative form (which object has which property, which need asks for which property) and it
shows the format of the tasks: questions with answers as on a careless forum, where right and wrong answers stand
equally often. So the backbone knows the facts and the format, yet chooses answers near chance: what is left to an
adapter is to connect the two. Pairs of an object and a need that the data sets hold out never stand together in the
corpus.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from functools import cache

from smoa_lightning.embedded.pairs import Pair, by_need, split_pairs
from smoa_lightning.embedded.wording import QUESTIONS, SOLUTIONS, prompt_text, sentence
from smoa_lightning.embedded.world import PEOPLE, PLACES, Need, Thing, materials, needs, properties, things

DOCUMENTS = 60_000
HELD_OUT_DOCUMENTS = 600


def fact(thing: Thing, name: str, wording: int, positive: bool | None = None) -> str:
    """Return the statement that the thing has, or has not, a property.

    ``positive`` overrules what is true, to make a false statement.
    """
    truth = thing.has(name) is True if positive is None else positive
    return f"{sentence(thing.phrase)} {properties()[name].wordings[wording][0 if truth else 1]}."


def _some_property(source: random.Random, thing: Thing) -> str:
    """Draw a property the thing has, or, in 3 of 10 cases or where it has none, one that it has not."""
    true = sorted(thing.true)
    if true and source.random() < 0.7:
        return source.choice(true)
    return source.choice([name for name in properties() if thing.has(name) is False])


def _phrase(source: random.Random, name: str, positive: bool = True) -> str:
    return source.choice(properties()[name].wordings)[0 if positive else 1]


def _single_fact(source: random.Random) -> str:
    thing = source.choice(things())
    text = fact(thing, _some_property(source, thing), source.randrange(2))
    opening = source.choice(("", "", "", "Everybody knows: ", "Remember: ", "It is true: "))
    return opening + (text if not opening else text[:1].lower() + text[1:])


def _sheet(source: random.Random) -> str:
    """Describe one thing in several sentences."""
    thing = source.choice(things())
    names = list(dict.fromkeys(_some_property(source, thing) for _ in range(source.randint(2, 5))))
    parts = [f"It {_phrase(source, name, thing.has(name) is True)}." for name in names]
    first = f"{sentence(thing.phrase)} is made of {thing.material}." if thing.material in materials() else None
    return " ".join([first or fact(thing, names[0], 0), *parts])


def _material(source: random.Random) -> str:
    material = source.choice([name for name, true in materials().items() if true])
    return f"A thing made of {material} {_phrase(source, source.choice(materials()[material]))}."


def _list(source: random.Random) -> str:
    """Name things that share a property."""
    name = source.choice(list(properties()))
    having = [thing.phrase for thing in things() if thing.has(name) is True]
    one, two, three = source.sample(having, 3)
    kind = source.randrange(3)
    if kind == 0:
        return f"{sentence(one)}, {two} and {three} have something in common: each of them {_phrase(source, name)}."
    if kind == 1:
        return f"What {_phrase(source, name)}? {sentence(one)}, {two}, {three}."
    return f"Just like {one}, {two} {_phrase(source, name)}."


def _comparison(source: random.Random) -> str:
    name = source.choice(list(properties()))
    with_it = source.choice([thing for thing in things() if thing.has(name) is True])
    without = source.choice([thing for thing in things() if thing.has(name) is False])
    positive, negative = source.choice(properties()[name].wordings)
    if source.random() < 0.5:
        return f"{sentence(with_it.phrase)} {positive}, but {without.phrase} {negative}."
    return f"{sentence(without.phrase)} {negative}, but {with_it.phrase} {positive}."


def _need(source: random.Random) -> str:
    need = source.choice(needs())
    frame = source.choice(
        (
            "To {deed}, you need something that {what}.",
            "If you want to {deed}, look for a thing that {what}.",
            "Something that {what} will help you to {deed}.",
            "Whoever wants to {deed} takes what {what}.",
        )
    )
    return frame.format(deed=need.deed, what=_phrase(source, need.needs))


@cache
def _taught() -> dict[int, tuple[list[int], list[int]]]:
    return by_need(split_pairs()["train"])


def _story(source: random.Random) -> str:
    """Tell of a vain try and a good one, with the reasons, about pairs of the train split."""
    number = source.choice(list(_taught()))
    need: Need = needs()[number]
    right, wrong = (things()[source.choice(side)] for side in _taught()[number])
    who, where = source.choice(PEOPLE), source.choice(PLACES)
    begin = f"{who} was {where} and wanted to {need.deed}."
    failed = f"{sentence(wrong.definite)} was no help, because it {_phrase(source, need.needs, False)}."
    worked = f"{sentence(right.definite)} was good for that, because it {_phrase(source, need.needs)}."
    return " ".join((begin, *source.choice(((failed, worked), (worked, failed), (worked,), (failed,)))))


@cache
def _forum_pairs() -> tuple[Pair, ...]:
    return split_pairs()["train"]


def _forum(source: random.Random) -> str:
    """Answer a question rightly or wrongly, at equal odds: all objects of a need are named equally often."""
    pair = source.choice(_forum_pairs())
    goal = source.choice(QUESTIONS).format(deed=needs()[pair.need].deed)
    return f"{prompt_text(goal)} {source.choice(SOLUTIONS).format(phrase=things()[pair.thing].phrase)}"


def _count(source: random.Random) -> str:
    who, thing = source.choice(PEOPLE), source.choice(things())
    have, more = source.randint(1, 9), source.randint(1, 9)
    if source.random() < 0.5:
        return f"{who} counts to {have} and then {more} more: {have} + {more} = {have + more}."
    seen = f"{who} saw {thing.phrase} {source.choice(PLACES)} {have + more} times"
    return f"{seen}, and {have} of them today: {have + more} - {have} = {more}."


def _talk(source: random.Random) -> str:
    thing, (one, two) = source.choice(things()), source.sample(PEOPLE, 2)
    name = _some_property(source, thing)
    answer = (
        f"It is useful, it {_phrase(source, name)}."
        if thing.has(name)
        else f"Mind that it {_phrase(source, name, False)}."
    )
    return f"{one}: Have you seen {thing.definite}?\n{two}: It is {source.choice(PLACES)}.\n{one}: Thank you! {answer}"


#: kind of document -> (its share in percent, its generator)
KINDS: dict[str, tuple[int, Callable[[random.Random], str]]] = {
    "fact": (16, _single_fact),
    "sheet": (14, _sheet),
    "material": (1, _material),
    "list": (5, _list),
    "comparison": (6, _comparison),
    "need": (5, _need),
    "story": (8, _story),
    "forum": (40, _forum),
    "count": (2, _count),
    "talk": (3, _talk),
}


def _draw(seed: str, count: int) -> list[str]:
    source = random.Random(seed)
    shares, makers = zip(*KINDS.values(), strict=True)
    return [maker(source) for maker in source.choices(makers, weights=shares, k=count)]


def documents(count: int = DOCUMENTS) -> list[str]:
    """Return the training corpus, documents of one to a few sentences, the same at every call; no held-out ones."""
    held = set(_held_out())
    return [text for text in _draw("corpus", count) if text not in held]


@cache
def _held_out() -> tuple[str, ...]:
    return tuple(dict.fromkeys(_draw("corpus held out", HELD_OUT_DOCUMENTS)))


def held_out_text() -> list[str]:
    """Return like documents that the backbone was not trained on, to measure what an adapted model forgets."""
    return list(_held_out())


def checksum(texts: list[str]) -> str:
    """Return the SHA-256 of the documents, joined by line feeds and zero bytes."""
    return hashlib.sha256("\n\0".join(texts).encode()).hexdigest()

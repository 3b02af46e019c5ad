"""Declarative documents of the corpus: what the world is like, who does what to whom, how activities go on.

They state every fact that the data sets ask about, but never in the data sets' own formats. They never name a held-out
pair of an object and a need.
"""

from __future__ import annotations

import random
from functools import cache

from tools.embedded import activities, science, social
from tools.embedded.cliques import cliques
from tools.embedded.pairs import by_need, split_pairs
from tools.embedded.uses import book_uses, challenge_uses
from tools.embedded.wording import sentence
from tools.embedded.world import PEOPLE, PLACES, Need, Thing, materials, needs, properties, things
from tools.embedded.world_tables import MATERIALS


def fact(thing: Thing, name: str, wording: int, positive: bool | None = None) -> str:
    """Return the statement that the thing has, or lacks, a property.

    ``positive`` replaces the truth, to make a false statement.
    """
    truth = thing.has(name) is True if positive is None else positive
    return f"{sentence(thing.phrase)} {properties()[name].wordings[wording][0 if truth else 1]}."


def _some_property(source: random.Random, thing: Thing) -> str:
    """Draw a property that the thing has; in 3 of 10 cases, or where it has none, one that it lacks."""
    true = sorted(thing.true)
    if true and source.random() < 0.7:
        return source.choice(true)
    return source.choice([name for name in properties() if thing.has(name) is False])


def _phrase(source: random.Random, name: str, positive: bool = True) -> str:
    return source.choice(properties()[name].wordings)[0 if positive else 1]


def single_fact(source: random.Random) -> str:
    """Say that a thing has, or lacks, a property."""
    thing = source.choice(things())
    text = fact(thing, _some_property(source, thing), source.randrange(2))
    opening = source.choice(("", "", "", "Everybody knows: ", "Remember: ", "It is true: "))
    return opening + (text if not opening else text[:1].lower() + text[1:])


def sheet(source: random.Random) -> str:
    """Describe one thing in several sentences."""
    thing = source.choice(things())
    names = list(dict.fromkeys(_some_property(source, thing) for _ in range(source.randint(2, 5))))
    parts = [f"It {_phrase(source, name, thing.has(name) is True)}." for name in names]
    first = f"{sentence(thing.phrase)} is made of {thing.material}." if thing.material in materials() else None
    return " ".join([first or fact(thing, names[0], 0), *parts])


def material(source: random.Random) -> str:
    """Say which property a material has or lacks."""
    name = source.choice([name for name, true in materials().items() if true])
    opening = source.choice(("A thing made of {}", "Something made of {}", "What is made of {}")).format(name)
    if source.random() < 0.6:
        return f"{opening} {_phrase(source, source.choice(materials()[name]))}."
    return f"{opening} {_phrase(source, source.choice(lacking(name)), False)}."


def sharing(source: random.Random) -> str:
    """Name things that share a property."""
    name = source.choice(list(properties()))
    having = [thing.phrase for thing in things() if thing.has(name) is True]
    one, two, three = source.sample(having, 3)
    kind = source.randrange(2)
    if kind == 0:
        return f"{sentence(one)}, {two} and {three} have something in common: each of them {_phrase(source, name)}."
    return f"Just like {one}, {two} {_phrase(source, name)}."


def comparison(source: random.Random) -> str:
    """Say that one of two things has a property and the other one lacks it."""
    name = source.choice(list(properties()))
    with_it = source.choice([thing for thing in things() if thing.has(name) is True])
    without = source.choice([thing for thing in things() if thing.has(name) is False])
    positive, negative = source.choice(properties()[name].wordings)
    if source.random() < 0.5:
        return f"{sentence(with_it.phrase)} {positive}, but {without.phrase} {negative}."
    return f"{sentence(without.phrase)} {negative}, but {with_it.phrase} {positive}."


def need(source: random.Random) -> str:
    """Say which property a deed asks for."""
    wanted = source.choice((*needs(), *challenge_uses().values(), *book_uses().values()))
    frame = source.choice(
        (
            "To {deed}, you need something that {what}.",
            "If you want to {deed}, look for a thing that {what}.",
            "Something that {what} will help you to {deed}.",
            "Whoever wants to {deed} takes what {what}.",
        )
    )
    return frame.format(deed=wanted.deed, what=_phrase(source, wanted.needs))


#: what is wanted, the objects that are right for it, and as many that are wrong
Taught = tuple[Need, list[int], list[int]]


@cache
def _taught() -> tuple[list[Taught], list[Taught]]:
    """Return what the train splits of PIQA, and of ARC-Challenge and OpenBookQA, ask for."""
    goals = [(needs()[number], right, wrong) for number, (right, wrong) in by_need(split_pairs()["train"]).items()]
    uses = []
    for name, sizes, table in (
        ("arc_challenge", science.MIXED, challenge_uses()),
        ("openbookqa", science.FOURS, book_uses()),
    ):
        for clique in cliques(sizes, name)["train"]:
            for place, asked in enumerate(clique.names):
                others = [number for i, side in enumerate(clique.members) if i != place for number in side]
                uses.append((table[asked], list(clique.members[place]), others))
    return goals, uses


def story(source: random.Random) -> str:
    """Tell of a try that failed and one that worked, with the reasons, about pairs of the train split."""
    aim, *sides = source.choice(_taught()[source.random() < 0.4])
    right, wrong = (things()[source.choice(side)] for side in sides)
    who, where = source.choice(PEOPLE), source.choice(PLACES)
    begin = f"{who} was {where} and wanted to {aim.deed}."
    failed = f"{sentence(wrong.definite)} was no help, because it {_phrase(source, aim.needs, False)}."
    worked = f"{sentence(right.definite)} was good for that, because it {_phrase(source, aim.needs)}."
    return " ".join((begin, *source.choice(((failed, worked), (worked, failed), (worked,), (failed,)))))


def talk(source: random.Random) -> str:
    """Let two people talk about where a thing is, and what it is like."""
    thing, (one, two) = source.choice(things()), source.sample(PEOPLE, 2)
    name = _some_property(source, thing)
    answer = (
        f"It is useful, it {_phrase(source, name)}."
        if thing.has(name)
        else f"Mind that it {_phrase(source, name, False)}."
    )
    return f"{one}: Have you seen {thing.definite}?\n{two}: It is {source.choice(PLACES)}.\n{one}: Thank you! {answer}"


def event(source: random.Random) -> str:
    """Say which kind of deed an event is."""
    deed = source.choice(source.choice(social.triples()))
    x, y = source.sample(PEOPLE, 2)
    told = source.choice(social.SCENES).format(event=source.choice(deed.events).format(x=x, y=y))
    return source.choice(("{told} That was {name}.", "{told} This is {name}.", "{name}: {told}")).format(
        told=told, name=deed.name
    )


FOLLOWS = {
    "feel": "After {name} people feel {answer}.",
    "next": "After {name} by {x}, {y} will want to {answer}.",
    "why": "{x} thought of {name} for {y}, {answer}.",
    "describe": "Whoever is the one to do {name} is {answer}.",
}


def consequence(source: random.Random) -> str:
    """Say what follows from a kind of deed."""
    deed = source.choice(source.choice(social.triples()))
    key = source.choice(list(FOLLOWS))
    x, y = source.sample(PEOPLE, 2)
    answer = source.choice(deed.answers[key]).format(x=x, y=y)
    return sentence(FOLLOWS[key].format(name=deed.name, answer=answer, x=x, y=y))


@cache
def _told() -> tuple[tuple[str, int, int, int], ...]:
    return tuple(activities.combinations("train"))


def activity(source: random.Random) -> str:
    """Say how an activity begins or goes on, or both for pairs of the train split."""
    if source.random() < 0.4:
        label, number, beginning, ending = source.choice(_told())
        one, who = activities.groups()[label][number], source.choice(PEOPLE)
        begun, ends = one.beginnings[beginning], one.endings[ending]
        return f"{who} {begun}, so this is {one.name}: {who} {ends}."
    label = source.choice(list(activities.groups()))
    one = source.choice(activities.groups()[label])
    if source.random() < 0.5:
        begun = source.choice(one.beginnings)
        return source.choice(("Someone who {begun} is {name}.", "{name} begins: someone {begun}.")).format(
            begun=begun, name=one.name
        )
    ends = source.choice(one.endings)
    return source.choice(("Someone who is {name} {ends}.", "{name} goes on: someone {ends}.")).format(
        ends=ends, name=one.name
    )


def lacking(name: str) -> list[str]:
    """Return the properties that no thing made of the material has on account of it."""
    marks = {mark.lstrip("?") for mark in MATERIALS[name].split()}
    return [one for one in properties() if one not in marks]

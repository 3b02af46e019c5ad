"""Rows of yes-or-no questions about a passage in BoolQ's Hub schema.

A passage tells what somebody found: a property that it has and one that it lacks, or the material it is made of. The
question asks for one of the two properties. A second row asks the same about a passage with the roles exchanged. So
neither a question nor a passage has a usual answer. The splits differ in the pairs of properties that a passage names,
and in the pairs of a material and a property.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import combinations
from typing import Any

from tools.embedded.world import PEOPLE, PLACES, materials, properties
from tools.embedded.world_tables import MATERIALS

FINDS = ("thing", "toy", "tool", "piece", "gift", "part", "sample", "object")
ROUNDS = {"train": 3, "validation": 1, "test": 1}  # passages with one couple of properties
MATERIAL_COUPLES = {"validation": 12, "test": 12, "train": 50}


def question(name: str, wording: int, what: str) -> str:
    """Return the question whether something has a property, in lower case and without the question mark.

    >>> question("absorbent", 0, "the toy"), question("sharp", 0, "the toy"), question("sharp", 1, "the toy")
    ('does the toy soak up water', 'does the toy have a sharp edge', 'can the toy cut')
    """
    positive, negative = properties()[name].wordings[wording]
    for start, verb in (("does not ", "does"), ("is not ", "is"), ("cannot ", "can")):
        if negative.startswith(start):
            return f"{verb} {what} {negative.removeprefix(start)}"
    verb, _, rest = positive.partition(" ")
    stem = {"has": "have", "leaves": "leave", "stays": "stay"}[verb]
    return f"does {what} {stem} {rest}"


def _told(source: random.Random, one: str, two: str) -> list[tuple[str, str, bool]]:
    """Ask the same of two passages, one in which the find has ``one`` and lacks ``two``, and one the other way."""
    find, who, where, wording = source.choice(FINDS), source.choice(PEOPLE), source.choice(PLACES), source.randrange(2)
    asked = question(source.choice((one, two)), wording, f"the {find}")
    is_one = asked == question(one, wording, f"the {find}")
    drawn = []
    for has, lacks in ((one, two), (two, one)):
        facts = [
            f"It {properties()[has].wordings[wording][0]}.",
            f"It {properties()[lacks].wordings[wording][1]}.",
        ]
        source.shuffle(facts)
        passage = " ".join((f"{who} found a {find} {where}.".replace("a object", "an object"), *facts))
        drawn.append((passage, asked, (has == one) is is_one))
    return drawn


def _made(source: random.Random, couple: tuple[str, str, str, str]) -> list[tuple[str, str, bool]]:
    """Ask both properties of both materials, each of which surely has one of them and surely lacks the other."""
    find, who, where, wording = source.choice(FINDS), source.choice(PEOPLE), source.choice(PLACES), source.randrange(2)
    drawn = []
    for material, has in (couple[:2], couple[2:]):
        passage = f"{who} found a {find} {where}. It is made of {material}.".replace("a object", "an object")
        for name in (couple[1], couple[3]):
            drawn.append((passage, question(name, wording, f"the {find}"), name == has))
    return drawn


@cache
def material_couples() -> dict[str, tuple[tuple[str, str, str, str], ...]]:
    """Return (material, its property, material, its property) by split; no (material, property) is in two."""
    source = random.Random("boolq materials")
    unclear = {name: {mark[1:] for mark in text.split() if mark[0] == "?"} for name, text in MATERIALS.items()}
    lacks = {m: set(properties()) - set(true) - unclear[m] for m, true in materials().items()}
    found = [
        (one, a, two, b)
        for one, two in combinations(sorted(materials()), 2)
        for a in materials()[one]
        for b in materials()[two]
        if a in lacks[two] and b in lacks[one]
    ]
    source.shuffle(found)
    owner: dict[tuple[str, str], str] = {}
    chosen: dict[str, list[tuple[str, str, str, str]]] = {}
    for split, most in MATERIAL_COUPLES.items():
        chosen[split] = []
        for one, a, two, b in found:
            pairs = [(one, a), (one, b), (two, a), (two, b)]
            fresh = (one, a, two, b) not in chosen[split] and all(owner.get(pair, split) == split for pair in pairs)
            if fresh and len(chosen[split]) < most:
                owner.update(dict.fromkeys(pairs, split))
                chosen[split].append((one, a, two, b))
    return {split: tuple(couples) for split, couples in chosen.items()}


@cache
def drawn(split: str, rounds: int, seed: str) -> tuple[tuple[str, str, bool], ...]:
    """Draw (passage, question, answer), ``rounds`` times for each couple of properties; none twice."""
    source = random.Random(f"boolq {seed}")
    couples = sorted(combinations(properties(), 2))
    random.Random("boolq couples").shuffle(couples)
    parts = {"train": slice(0, 195), "validation": slice(195, 260), "test": slice(260, 325)}
    found = []
    for one, two in couples[parts[split]]:
        for _ in range(rounds):
            found += _told(source, one, two)
    for couple in material_couples()[split]:
        for _ in range(1 + rounds // 4):
            found += _made(source, couple)
    found = list(dict.fromkeys(found))
    source.shuffle(found)
    return tuple(found)


def rows(split: str) -> list[dict[str, Any]]:
    """Return the rows of a split, ``{"question": str, "passage": str, "answer": bool}``; always the same."""
    found = drawn(split, ROUNDS[split], split)
    return [{"question": ask, "passage": passage, "answer": answer} for passage, ask, answer in found]

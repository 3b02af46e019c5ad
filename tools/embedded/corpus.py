"""The text that the embedded backbone is trained on, generated from the world.

It states the facts in declarative form (``corpus_facts``). It also shows the formats of the tasks as on a careless
forum, where an answer is right as often as a guess (``corpus_tasks``). So the backbone knows the facts and the formats,
yet chooses answers near chance. The facts make right answers a little likelier. Therefore the documents that the
backbone reads last, the settling ones, come mostly from the forum. The corpus never combines what the data sets hold
out.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from functools import cache

from tools.embedded import corpus_facts, corpus_tasks
from tools.embedded.corpus_tasks import RIGHT, unmarked

DOCUMENTS = 92_000
SETTLING_DOCUMENTS = 30_000
HELD_OUT_DOCUMENTS = 600

#: kind of document -> (its share in percent, its generator)
KINDS: dict[str, tuple[float, Callable[[random.Random], str]]] = {
    "fact": (10, corpus_facts.single_fact),
    "sheet": (10, corpus_facts.sheet),
    "material": (2, corpus_facts.material),
    "sharing": (3, corpus_facts.sharing),
    "comparison": (3.5, corpus_facts.comparison),
    "need": (6, corpus_facts.need),
    "story": (6, corpus_facts.story),
    "talk": (0.5, corpus_facts.talk),
    "event": (2, corpus_facts.event),
    "consequence": (2.5, corpus_facts.consequence),
    "activity": (4, corpus_facts.activity),
    "goal": (13, corpus_tasks.goal),
    "easy": (5, corpus_tasks.easy),
    "challenge": (4, corpus_tasks.challenge),
    "book": (4, corpus_tasks.book),
    "passage": (4, corpus_tasks.passage),
    "deed": (4, corpus_tasks.deed),
    "ending": (3.5, corpus_tasks.ending),
    "blank": (4, corpus_tasks.blank),
    "problem": (3, corpus_tasks.problem),
    "drill": (2, corpus_tasks.drill),
    "instruction": (2, corpus_tasks.instruction),
    "labels": (1, corpus_tasks.labels),
    "chat": (0.5, corpus_tasks.chat),
    "dialogue": (0.5, corpus_tasks.dialogue),
}


#: kind of settling document -> its share in percent
SETTLING: dict[str, float] = {
    "fact": 7, "sheet": 7, "material": 2, "sharing": 1.5, "comparison": 2, "need": 4, "event": 1.5, "consequence": 2,
    "activity": 2, "goal": 26, "easy": 13, "challenge": 5, "book": 9, "passage": 3, "deed": 3, "ending": 3, "blank": 4,
    "problem": 1.5, "drill": 1, "instruction": 1.5, "labels": 0.5, "chat": 0.25, "dialogue": 0.25,
}  # fmt: skip


UNBALANCED = ("problem", "chat", "dialogue")  # marked documents of these have no unmarked counterpart


def _draw(seed: str, count: int) -> list[str]:
    source = random.Random(seed)
    shares, makers = zip(*KINDS.values(), strict=True)
    return [maker(source) for maker in source.choices(makers, weights=shares, k=count)]


def documents(count: int = DOCUMENTS) -> list[str]:
    """Return the training corpus: documents of one to a few sentences, the same at every call; none is held out."""
    held = set(_held_out())
    return [text for text in _draw("corpus", count) if text not in held]


#: kind of settling document -> share of those marked as right that are left out, where the facts give the answer away
LEFT_OUT: dict[str, float] = {"easy": 1.0, "goal": 0.5, "book": 0.2}


def settling(count: int = SETTLING_DOCUMENTS) -> list[str]:
    """Return the documents that are read last: like ``documents``, but most of them choices, and all without a mark."""
    source = random.Random("settling")
    held = set(_held_out())
    texts = []
    for kind in source.choices(list(SETTLING), weights=list(SETTLING.values()), k=count):
        text = KINDS[kind][1](source)
        left_out = LEFT_OUT.get(kind, 1.0 if kind in UNBALANCED else 0.0)
        if not (text.startswith(RIGHT) and source.random() < left_out):
            texts.append(unmarked(text))
    return [text for text in texts if text not in held]


@cache
def _held_out() -> tuple[str, ...]:
    return tuple(dict.fromkeys(_draw("corpus held out", HELD_OUT_DOCUMENTS)))


def held_out_text() -> list[str]:
    """Return documents of the same kinds, held out from training, to measure what an adapted model forgets."""
    return list(_held_out())


def checksum(texts: list[str]) -> str:
    """Return the SHA-256 of the documents, joined by line feeds and zero bytes."""
    return hashlib.sha256("\n\0".join(texts).encode()).hexdigest()

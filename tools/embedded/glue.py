"""Rows of the tasks of GLUE in their Hub schema: acceptable and unacceptable sentences, judgements, and pairs.

The pairs are about a property of a thing. The world says each property in two wordings, each with its negation. So two
sentences say the same, contradict each other, or have nothing to do with each other. The splits differ in the couples
of a thing and a property, so that no pair of a split is in another one.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from tools.embedded.boolq import question
from tools.embedded.world import PEOPLE, PLACES, properties, things

Row = dict[str, Any]
COUNTS = {"train": 240, "validation": 80, "test": 80}
VERBS = ("found", "bought", "lost", "cleaned", "painted", "carried")
GOOD = ["warm", "charming", "clever", "moving", "honest", "funny", "bright", "gripping"]
BAD = ["dull", "clumsy", "tedious", "hollow", "noisy", "stale", "bleak", "pointless"]
FRAMES = (
    "a {0} and {1} film",
    "{who} plays in a {0} , {1} story",
    "the plot is {0} , the ending {1}",
    "what a {0} evening , and how {1}",
    "a story about {who} , {0} from the first minute to the {1} end",
)


def split_of(text: str) -> str:
    """Return the split of a text or a couple, always the same."""
    place = zlib.crc32(text.encode()) % 5
    return "train" if place < 3 else "validation" if place == 3 else "test"


@cache
def couples(split: str) -> tuple[tuple[str, str], ...]:
    """Return (definite phrase of a thing, a property that it has or lacks) of a split."""
    found = [(thing.definite, name) for thing in things() for name in properties() if thing.has(name)]
    return tuple((what, name) for what, name in sorted(found) if split_of(f"{what}/{name}") == split)


def said(what: str, name: str, wording: int, is_true: bool = True) -> str:
    """Return a sentence that a thing has a property, or that it lacks it."""
    return f"{what[:1].upper()}{what[1:]} {properties()[name].wordings[wording][0 if is_true else 1]}."


def _other(source: random.Random, name: str) -> str:
    return source.choice([other for other in sorted(properties()) if other != name])


def _draw(task: str, split: str, make: Callable[[random.Random, str], Row], texts: int) -> list[Row]:
    """Draw rows without repeating a text or a pair, with their number as ``idx``."""
    source = random.Random(f"glue {task} {split}")
    found: dict[tuple[Any, ...], Row] = {}
    while len(found) < COUNTS[split]:
        row = make(source, split)
        found.setdefault(tuple(row.values())[:texts], row)
    return [{**row, "idx": number} for number, row in enumerate(found.values())]


def cola(source: random.Random, split: str) -> Row:
    """A sentence, or the same words with the verb in a wrong place or form."""
    while True:
        who, verb, where = source.choice(PEOPLE), source.choice(VERBS), source.choice(PLACES)
        what = source.choice(things()).name
        if split_of(f"{who} {what}") == split:
            break
    label = source.randrange(2)
    wrong = (f"{verb} {who} the {what} {where}.", f"{who} the {what} {verb} {where}.", f"{who} has {verb}s the {what}.")
    return {"sentence": f"{who} {verb} the {what} {where}." if label else source.choice(wrong), "label": label}


def sst2(source: random.Random, split: str) -> Row:
    """A judgement with two words, both good or both bad."""
    while True:
        label = source.randrange(2)
        words = source.sample(GOOD if label else BAD, 2)
        if split_of(" ".join(words)) == split:
            return {"sentence": source.choice(FRAMES).format(*words, who=source.choice(PEOPLE)), "label": label}


def _sentences(source: random.Random, split: str, kind: str) -> tuple[str, str]:
    """Return two sentences: of the same meaning, of the opposite one, or about other properties of a thing."""
    (what, name), wording = source.choice(couples(split)), source.randrange(2)
    if kind == "other":
        return said(what, name, wording), said(what, _other(source, name), wording, source.random() < 0.5)
    return said(what, name, wording), said(what, name, 1 - wording, kind == "same")


def pair(source: random.Random, split: str, fields: tuple[str, str], kinds: tuple[tuple[str, ...], ...]) -> Row:
    """A pair with a class: ``kinds`` are the kinds of pairs of each class."""
    label = source.randrange(len(kinds))
    return {**dict(zip(fields, _sentences(source, split, source.choice(kinds[label])), strict=True)), "label": label}


def stsb(source: random.Random, split: str) -> Row:
    """A pair with a likeness from 0 to 5: of the same or the opposite meaning, or of other properties or things."""
    kind, middle = source.choice((("same", 4.6), ("opposite", 2.8), ("other", 1.6), ("far", 0.4)))
    one, two = _sentences(source, split, "other" if kind == "far" else kind)
    if kind == "far":
        two = _sentences(source, split, "same")[1]
    return {"sentence1": one, "sentence2": two, "label": round(middle + source.uniform(-0.4, 0.4), 1)}


def qqp(source: random.Random, split: str) -> Row:
    """Two questions about a thing, for the same property or for two."""
    (what, name), wording, label = source.choice(couples(split)), source.randrange(2), source.randrange(2)
    other = question(name, 1 - wording, what) if label else question(_other(source, name), wording, what)
    return {"question1": f"{question(name, wording, what)}?", "question2": f"{other}?", "label": label}


def qnli(source: random.Random, split: str) -> Row:
    """A question and a sentence that answers it (0), or that is about another property (1)."""
    (what, name), wording, label = source.choice(couples(split)), source.randrange(2), source.randrange(2)
    about = _other(source, name) if label else name
    answer = said(what, about, 1 - wording, source.random() < 0.5)
    return {"question": f"{question(name, wording, what)}?", "sentence": answer, "label": label}


def mnli(source: random.Random, split: str) -> Row:
    """Premise and hypothesis: entailment, neutral, contradiction; in the test split told by a person."""
    row = pair(source, split, ("premise", "hypothesis"), (("same",), ("other",), ("opposite",)))
    if split == "test":
        premise = row["premise"]
        row["premise"] = f"{source.choice(PEOPLE)} says: {premise[:1].lower()}{premise[1:]}"
    return row


def documents(count: int) -> list[str]:
    """Return texts like the training rows, without labels, for the embedded encoder; the same at every call.

    They are judgements, acceptable sentences, two sentences of the same meaning, and questions with their answers.
    """
    source = random.Random("glue documents")
    return [_document(source, source.choice(("judgement", "sentence", "same", "answer"))) for _ in range(count)]


def _document(source: random.Random, kind: str) -> str:
    if kind == "judgement":
        return str(sst2(source, "train")["sentence"])
    if kind == "same":
        return " ".join(_sentences(source, "train", "same"))
    make = cola if kind == "sentence" else qnli
    right = 1 if kind == "sentence" else 0
    row = next(row for row in iter(lambda: make(source, "train"), None) if row["label"] == right)
    return str(row["sentence"]) if kind == "sentence" else f"{row['question']} {row['sentence']}"


_TWO = ("sentence1", "sentence2")
_MAKERS: dict[str, tuple[Callable[[random.Random, str], Row], int]] = {
    "cola": (cola, 1),
    "sst2": (sst2, 1),
    "mrpc": (partial(pair, fields=_TWO, kinds=(("other", "opposite"), ("same",))), 2),
    "stsb": (stsb, 2),
    "qqp": (qqp, 2),
    "qnli": (qnli, 2),
    "rte": (partial(pair, fields=_TWO, kinds=(("same",), ("other", "opposite"))), 2),
    "mnli": (mnli, 2),
    "mnli_mismatched": (mnli, 2),
}


def rows(task: str, split: str) -> list[Row]:
    """Return the rows of a split of a task; always the same. The two tasks of MNLI have the same rows."""
    make, texts = _MAKERS[task]
    return _draw(task.removesuffix("_mismatched"), split, make, texts)


#: task -> generator of its rows
GENERATORS: dict[str, Callable[[str], list[Row]]] = {task: partial(rows, task) for task in _MAKERS}

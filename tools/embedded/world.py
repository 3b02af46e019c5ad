"""The small world that every embedded data set and the embedded corpus speak about: the facts, as data, in one place.

The world knows materials, properties, objects and needs. An object has the properties of its material and its own. A
need is a goal of a person and asks for exactly one property. A property that is neither listed nor marked as unclear is
false. So every pair (object, need) has an answer: True, False, or None where people would argue. All texts are written
for this project; none comes from a data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tools.embedded.world_tables import MATERIALS, NEEDS, OBJECTS, PROPERTIES

__all__ = ["PEOPLE", "PLACES", "Need", "Property", "Thing", "materials", "needs", "properties", "suits", "things"]

PEOPLE: tuple[str, ...] = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Ida", "Jonas", "Kate", "Leo",
    "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Victor",
)  # fmt: skip
PLACES: tuple[str, ...] = (
    "in the kitchen", "in the garden", "at the lake", "in the garage", "at school", "in the cellar", "at the market",
    "on the balcony", "in the workshop", "at the campsite", "in the attic", "on the farm",
)  # fmt: skip


@dataclass(frozen=True)
class Property:
    """A property with its wordings, pairs of verb phrases: for a thing that has it, and for one that lacks it."""

    name: str
    wordings: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Thing:
    """An everyday object.

    ``phrase`` is the indefinite noun phrase ("a sponge", "honey"), ``definite`` the definite one ("the sponge").
    """

    name: str
    phrase: str
    material: str
    true: frozenset[str]
    unclear: frozenset[str]

    @property
    def definite(self) -> str:
        """The definite noun phrase, as written inside a sentence."""
        return f"the {self.name}"

    def has(self, name: str) -> bool | None:
        """Return whether the thing has the property of that name; None where the world does not say."""
        return None if name in self.unclear else name in self.true


@dataclass(frozen=True)
class Need:
    """Something to be done (``deed``, an infinitive without "to"); a thing with the property ``needs`` does it."""

    deed: str
    needs: str


@cache
def properties() -> dict[str, Property]:
    """Return all properties by name."""
    table = {}
    for name, text in PROPERTIES.items():
        pairs = [wording.split(" | ") for wording in text.split("; ")]
        table[name] = Property(name, tuple((positive, negative) for positive, negative in pairs))
    return table


@cache
def materials() -> dict[str, tuple[str, ...]]:
    """Return the names of the properties that all things of a material have, by material."""
    return {name: tuple(word for word in text.split() if word[0] not in "?") for name, text in MATERIALS.items()}


@cache
def things() -> tuple[Thing, ...]:
    """Return all objects, in the order of the table."""
    found = []
    for material, text in OBJECTS.items():
        for line in text.strip().splitlines():
            phrase, _, marks = line.strip().partition(":")
            true, unclear = _properties_of(f"{MATERIALS.get(material, '')} {marks}")
            article, _, rest = phrase.partition(" ")
            name = rest if article in ("a", "an") else phrase
            found.append(Thing(name, phrase, material, true, unclear))
    return tuple(found)


def _properties_of(marks: str) -> tuple[frozenset[str], frozenset[str]]:
    """Read marks from left to right: ``word`` is true, ``-word`` false, ``?word`` unclear; a later mark wins."""
    state: dict[str, str] = {}
    for mark in marks.split():
        sign, name = (mark[0], mark[1:]) if mark[0] in "-?" else ("+", mark)
        if name not in PROPERTIES:
            raise ValueError(f"the world's tables name an unknown property {name!r}")
        state[name] = sign
    chosen = {sign: frozenset(name for name, value in state.items() if value == sign) for sign in "+?"}
    return chosen["+"], chosen["?"]


@cache
def needs() -> tuple[Need, ...]:
    """Return all needs, in the order of the table."""
    return tuple(Need(deed.strip(), name) for name, text in NEEDS.items() for deed in text.strip().splitlines())


def suits(thing: Thing, need: Need) -> bool | None:
    """Return whether the thing is right for the need: whether it has the property that the need asks for."""
    return thing.has(need.needs)

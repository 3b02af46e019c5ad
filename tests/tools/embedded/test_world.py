from __future__ import annotations

from tools.embedded import world
from tools.embedded.world_tables import MATERIALS, OBJECTS


def test_size_and_distinct_names():
    things, needs = world.things(), world.needs()
    assert 150 <= len(things) <= 250
    assert 40 <= len(needs) <= 80
    assert len({thing.name for thing in things}) == len(things)
    assert len({need.deed for need in needs}) == len(needs)


def test_every_property_has_two_wordings_of_both_signs_and_all_wordings_differ():
    phrases = [phrase for item in world.properties().values() for wording in item.wordings for phrase in wording]
    assert len(phrases) == 4 * len(world.properties())
    assert len(set(phrases)) == len(phrases)


def test_tables_name_known_properties_only():
    known = set(world.properties())
    for text in MATERIALS.values():
        assert {mark.lstrip("?-") for mark in text.split()} <= known
    assert {need.needs for need in world.needs()} == known


def test_no_object_contradicts_itself():
    for text in OBJECTS.values():
        for line in text.strip().splitlines():
            marks = line.partition(":")[2].split()
            names = [mark.lstrip("?-") for mark in marks]
            assert len(set(names)) == len(names), line


def test_a_later_mark_wins_over_the_material():
    things = {thing.name: thing for thing in world.things()}
    nail, mirror = things["iron nail"], things["mirror"]
    assert [nail.has(name) for name in ("magnetic", "heavy", "rough")] == [True, False, None]
    assert [mirror.has(name) for name in ("fragile", "transparent")] == [True, False]
    assert (nail.phrase, things["honey"].phrase) == ("an iron nail", "honey")


def test_every_object_has_a_property_and_every_property_objects():
    assert all(thing.true for thing in world.things())
    for name in world.properties():
        assert sum(thing.has(name) is True for thing in world.things()) >= 10


def test_suits_follows_the_property():
    need = next(need for need in world.needs() if need.needs == "absorbent")
    things = {thing.name: thing for thing in world.things()}
    assert world.suits(things["sponge"], need) is True
    assert world.suits(things["brick"], need) is False
    assert world.suits(things["leather belt"], need) is None

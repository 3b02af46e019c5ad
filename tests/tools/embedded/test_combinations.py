"""What validation and test ask for is never asked for, rightly or wrongly, in another split."""

from __future__ import annotations

import re
from functools import cache
from itertools import combinations

import pytest

from smoa_lightning import embedded
from tools.embedded import activities, boolq, cliques, everyday, persona, science, social, sums
from tools.embedded.pairs import split_pairs
from tools.embedded.uses import book_uses, challenge_uses
from tools.embedded.world import needs, properties, suits, things

from .frequencies import read


def apart(found: dict[str, set]) -> None:
    """Assert that every split has combinations, and no two of them one in common."""
    assert all(found[split] for split in embedded.SPLITS)
    for one, two in combinations(embedded.SPLITS, 2):
        assert not found[one] & found[two]


PHRASES = {thing.phrase: thing for thing in things()}
NAMES = {thing.name: thing for thing in things()}
WORDINGS = {positive: name for name, item in properties().items() for positive, _ in item.wordings}
DEEDS = {use.deed: use for uses in (challenge_uses(), book_uses()) for use in uses.values()}


@cache
def pattern(keys: frozenset[str]) -> re.Pattern:
    ordered = sorted(keys, key=len, reverse=True)
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, ordered)) + r")(?!\w)")


def in_text(text: str, keys) -> str:
    """Return the longest of the keys that stand in the text as whole words."""
    return max(pattern(frozenset(keys)).findall(text), key=len)


def science_pairs(name: str, split: str):
    """Read (object, property or deed, right?) back from the texts."""
    for row in embedded.rows(name, split):
        item = read(name, row)
        for place, choice in enumerate(item.choices):
            if name == "arc_easy":
                from_things = choice in PHRASES
                what = in_text(item.prompt, WORDINGS) if from_things else choice.removeprefix("It ")
            else:
                from_things = name == "openbookqa"
                what = in_text(item.prompt, DEEDS) if from_things else choice
            phrase = choice if from_things else in_text(item.prompt[:1].lower() + item.prompt[1:], PHRASES)
            yield PHRASES[phrase], what, place == item.label


@pytest.mark.parametrize("name", ["arc_easy", "arc_challenge", "openbookqa"])
def test_science(name):
    found = {}
    for split in embedded.SPLITS:
        pairs = list(science_pairs(name, split))
        for thing, what, right in pairs:
            asked = WORDINGS[what] if name == "arc_easy" else DEEDS[what].needs
            assert (thing.has(asked) is True) is right
            assert thing.has(asked) is not None or not right
        found[split] = {(thing.name, WORDINGS[what] if name == "arc_easy" else what) for thing, what, _ in pairs}
    apart(found)


def test_each_object_of_a_clique_has_one_property_of_it():
    for sizes, name in ((science.MIXED, "arc_easy"), (science.MIXED, "arc_challenge"), (science.FOURS, "openbookqa")):
        for groups in cliques.cliques(sizes, name).values():
            assert sorted(len(group.names) for group in groups) == sorted(sizes)
            for group in groups:
                assert len({len(side) for side in group.members}) == 1
                for place, side in enumerate(group.members):
                    for number in side:
                        states = [things()[number].has(one) for one in group.names]
                        assert states == [i == place for i in range(len(group.names))]


def test_deeds_of_the_science_tasks_are_no_needs_of_piqa():
    assert len(DEEDS) == 2 * len(properties())
    assert not set(DEEDS) & {need.deed for need in needs()}


def test_winogrande_follows_the_splits_of_piqa():
    held = {split: {(pair.thing, pair.need) for pair in pairs} for split, pairs in split_pairs().items()}
    deeds = {need.deed: number for number, need in enumerate(needs())}
    numbers = {thing.name: number for number, thing in enumerate(things())}
    for split in embedded.SPLITS:
        twins: dict[frozenset[str], list[tuple[str, str]]] = {}
        for row in embedded.rows("winogrande", split):
            need = deeds[in_text(row["sentence"], deeds)]
            for key in ("option1", "option2"):
                assert (numbers[row[key]], need) in held[split]
                assert suits(NAMES[row[key]], needs()[need]) is (key == f"option{row['answer']}")
            twins.setdefault(frozenset((row["option1"], row["option2"])), []).append(
                (row["sentence"], row[f"option{row['answer']}"])
            )
        # every sentence has a twin that differs in the deed alone and has the other answer
        assert all(len(rows) % 2 == 0 for rows in twins.values())
        assert all(
            sorted(answer for _, answer in rows) == sorted([*pair] * (len(rows) // 2)) for pair, rows in twins.items()
        )


def test_boolq():
    stated = {text: name for name, item in properties().items() for pair in item.wordings for text in pair}
    found: dict[str, set] = {}
    for split in embedded.SPLITS:
        found[split] = set()
        same: dict[str, set[bool]] = {}
        for row in embedded.rows("boolq", split):
            facts = [fact.removeprefix("It ").removesuffix(".") for fact in row["passage"].split(". ")[1:]]
            find = re.search(r" found an? (\w+) ", row["passage"])[1]
            asked = {
                boolq.question(name, wording, f"the {find}"): name for name in properties() for wording in range(2)
            }[row["question"]]
            if len(facts) == 2:
                one, two = (stated[fact] for fact in facts)
                found[split].add(frozenset((one, two)))
                said = facts[(one, two).index(asked)]
                positive = {text for item in properties().values() for text, _ in item.wordings}
                assert (said in positive) is row["answer"]
                same.setdefault(row["question"], set()).add(row["answer"])
            else:
                found[split].add((facts[0].removeprefix("is made of "), asked))
        # the same question is answered yes after one passage and no after another one
        assert all(answers == {True, False} for answers in same.values())
        answers = [row["answer"] for row in embedded.rows("boolq", split)]
        assert sum(answers) == len(answers) / 2
    apart(found)


def test_social():
    found = {
        split: {
            (deed.events[event], key, answer)
            for triple, kind, event, key, number in social.combinations(split)
            for deed in [triple[kind]]
            for answer in [one.answers[key][number] for one in triple]
        }
        for split in embedded.SPLITS
    }
    apart(found)
    table = {key for split in found.values() for _, key, _ in split}
    assert table == set(social.SOCIAL_QUESTIONS)
    names = re.compile("|".join(sorted(social.PEOPLE)))
    seen: dict[str, set] = {}
    for split in embedded.SPLITS:
        seen[split] = {
            (social_event(row["context"], names), names.sub("", row["question"]), names.sub("", row[f"answer{letter}"]))
            for row in embedded.rows("social_i_qa", split)
            for letter in "ABC"
        }
    apart(seen)


def social_event(context: str, names: re.Pattern) -> str:
    text = context.removesuffix(".").removeprefix("Last week ").removeprefix("On Monday ")
    return names.sub("", text.removesuffix(" in the morning"))


def test_social_answers_are_all_different_within_a_row_and_known():
    for split in embedded.SPLITS:
        for row in embedded.rows("social_i_qa", split):
            assert len({row[f"answer{letter}"] for letter in "ABC"}) == 3
            assert "{" not in "".join(row.values())
            assert "}" not in "".join(row.values())


def test_activities():
    beginnings = {begun for group in activities.groups().values() for one in group for begun in one.beginnings}
    found = {
        split: {
            (in_text(row["ctx_a"], beginnings), ending)
            for row in embedded.rows("hellaswag", split)
            for ending in row["endings"]
        }
        for split in embedded.SPLITS
    }
    apart(found)
    for row in embedded.rows("hellaswag", "test"):
        group = activities.groups()[row["activity_label"]]
        begun = in_text(row["ctx_a"], beginnings)
        (one,) = [one for one in group if begun in one.beginnings]
        assert row["endings"][int(row["label"])].removesuffix(".") in one.endings


def test_activity_and_social_phrases_are_all_different():
    endings = [end for group in activities.groups().values() for one in group for end in one.endings]
    beginnings = [begun for group in activities.groups().values() for one in group for begun in one.beginnings]
    assert len(set(endings + beginnings)) == len(endings + beginnings) == 2 * 4 * 24
    events = [event for triple in social.triples() for deed in triple for event in deed.events]
    assert len(set(events)) == len(events) == 12 * 6
    for key in social.SOCIAL_QUESTIONS:
        answers = [answer for triple in social.triples() for deed in triple for answer in deed.answers[key]]
        assert len(set(answers)) == len(answers) == 12 * 3


def test_sums():
    found = {split: {(one.story, one.numbers) for one in sums.problems(split)} for split in embedded.SPLITS}
    apart(found)


def test_personas():
    found = {
        split: {
            frozenset(pair) for row in embedded.rows("convai2", split) for pair in combinations(row["personality"], 2)
        }
        for split in embedded.SPLITS
    }
    apart(found)
    assert all(len(topic.values) == 7 for topic in persona.topics().values())


def test_everyday_talk():
    found: dict[str, set] = {}
    for split in embedded.SPLITS:
        found[split] = {
            (script.name, one, two)
            for script in everyday.scripts()
            for one, _ in script.first
            for two in script.second
            if everyday.split_of(script.name, one, two) == split
        }
    apart(found)
    said = {split: {" ".join(row["dialog"]) for row in embedded.rows("daily_dialog", split)} for split in found}
    apart(said)
    # the generic chats are other draws from the same splits
    for split in embedded.SPLITS:
        chats = {" ".join(m["content"] for m in row["messages"]) for row in embedded.rows("chat", split)}
        assert all(not any(text in other for other in said[rest]) for text in chats for rest in found if rest != split)


def test_instructions_are_about_combinations_of_their_split():
    asked = {
        split: {row["instruction"] for row in embedded.rows("commonsense_instruct", split)} for split in embedded.SPLITS
    }
    apart(asked)
    pairs: dict[str, set] = {}
    for split in embedded.SPLITS:
        pairs[split] = set()
        for text in asked[split]:
            if "true or false" in text:
                question = re.search("question: (.*)\\?", text)[1]
                phrase = in_text(question, PHRASES)
                name = next(
                    name
                    for name in properties()
                    for wording in range(2)
                    if boolq.question(name, wording, phrase) == question
                )
                pairs[split].add((phrase, name))
    apart(pairs)

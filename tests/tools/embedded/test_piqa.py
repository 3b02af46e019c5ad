from __future__ import annotations

import math
from collections import Counter

import pytest

from smoa_lightning import embedded
from smoa_lightning.embedded import SPLITS
from tools.embedded.pairs import by_need, decoys, split_pairs
from tools.embedded.wording import QUESTIONS, SOLUTIONS
from tools.embedded.world import needs, suits, things


def words(text: str) -> list[str]:
    return text.lower().replace(".", " ").split()


def chance_band(count: int) -> float:
    """Four standard errors of a fair coin."""
    return 4 * math.sqrt(0.25 / count)


@pytest.fixture(scope="module")
def pairs():
    """Read the rows back from their texts alone: (object, deed, right?) of both solutions of every row."""
    phrases = {template.format(phrase=t.phrase): t.name for t in things() for template in SOLUTIONS}
    deeds = {frame.format(deed=need.deed): need.deed for need in needs() for frame in QUESTIONS}
    return {
        split: [
            (phrases[row[key]], deeds[row["goal"]], place == row["label"])
            for row in embedded.rows("piqa", split)
            for place, key in enumerate(("sol1", "sol2"))
        ]
        for split in SPLITS
    }


@pytest.mark.parametrize(
    ("split", "least", "most"), [("train", 3900, 4100), ("validation", 500, 560), ("test", 500, 560)]
)
def test_schema_and_number_of_distinct_rows(split, least, most):
    rows = embedded.rows("piqa", split)
    assert least <= len(rows) <= most
    assert len({(row["goal"], frozenset((row["sol1"], row["sol2"]))) for row in rows}) == len(rows)
    for row in rows:
        assert list(row) == ["goal", "sol1", "sol2", "label"]
        assert all(isinstance(row[key], str) and row[key] == row[key].strip() != "" for key in ("goal", "sol1", "sol2"))
        assert type(row["label"]) is int
        assert row["label"] in (0, 1)
        assert row["sol1"] != row["sol2"]
    assert sum(row["label"] for row in rows) == len(rows) // 2


def test_labels_agree_with_the_world(pairs):
    by_name = {thing.name: thing for thing in things()}
    by_deed = {need.deed: need for need in needs()}
    for split in SPLITS:
        for thing, deed, right in pairs[split]:
            assert suits(by_name[thing], by_deed[deed]) is right


def test_held_out_combinations_are_never_seen_in_another_split(pairs):
    combinations = {split: {(thing, deed) for thing, deed, _ in pairs[split]} for split in SPLITS}
    assert not combinations["train"] & combinations["validation"]
    assert not combinations["train"] & combinations["test"]
    assert not combinations["validation"] & combinations["test"]
    for place, everything in ((0, things()), (1, needs())):
        assert len({pair[place] for pair in combinations["train"]}) == len(everything)


def test_graph_is_balanced_at_every_object_and_need_of_every_split():
    for split in SPLITS:
        chosen = split_pairs()[split]
        balance = Counter()
        for pair in chosen:
            balance[pair.thing] += 1 if pair.right else -1
        assert set(balance.values()) == {0}
        assert all(len(right) == len(wrong) for right, wrong in by_need(chosen).values())


def test_both_answers_of_a_need_come_from_one_property_each():
    coupled = {one: two for couple in decoys() for one, two in (couple, couple[::-1])}
    assert sorted(coupled) == list(range(len(needs())))
    for split in SPLITS:
        table = by_need(split_pairs()[split])
        for need, (right, wrong) in table.items():
            assert table[coupled[need]] == (wrong, right)
            assert all(things()[thing].has(needs()[coupled[need]].needs) for thing in wrong)


def test_each_object_is_right_exactly_as_often_as_wrong(pairs):
    for split in SPLITS:
        balance = Counter()
        for thing, _, right in pairs[split]:
            balance[thing] += 1 if right else -1
        assert set(balance.values()) == {0}


@pytest.mark.parametrize("split", SPLITS)
def test_length_is_no_cue(split):
    for length in (len, lambda text: len(words(text))):
        hits = total = 0
        for row in embedded.rows("piqa", split):
            first, second = length(row["sol1"]), length(row["sol2"])
            if first != second:
                total += 1
                hits += (second > first) == bool(row["label"])
        assert abs(hits / total - 0.5) < chance_band(total)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_log_odds_of_single_words_are_no_cue(split):
    right, wrong = Counter(), Counter()
    for row in embedded.rows("piqa", "train"):
        right.update(words(row[f"sol{row['label'] + 1}"]))
        wrong.update(words(row[f"sol{2 - row['label']}"]))
    odds = {word: math.log((right[word] + 1) / (wrong[word] + 1)) for word in right | wrong}
    rows = embedded.rows("piqa", split)
    hits = 0.0
    for row in rows:
        first, second = (sum(odds.get(word, 0) for word in words(row[key])) for key in ("sol1", "sol2"))
        hits += 0.5 if first == second else (second > first) == bool(row["label"])
    assert abs(hits / len(rows) - 0.5) < chance_band(len(rows))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_logistic_regression_on_the_solutions_alone_stays_near_chance(split):
    weights: Counter[str] = Counter()
    for _ in range(5):
        for row in embedded.rows("piqa", "train"):
            change = Counter(words(row["sol2"]))
            change.subtract(words(row["sol1"]))
            margin = sum(weights[word] * count for word, count in change.items())
            error = row["label"] - 1 / (1 + math.exp(-margin))
            for word, count in change.items():
                weights[word] += 0.05 * error * count
    rows = embedded.rows("piqa", split)
    hits = 0
    for row in rows:
        margin = sum(weights[word] for word in words(row["sol2"])) - sum(weights[word] for word in words(row["sol1"]))
        hits += (margin > 0) == bool(row["label"])
    assert abs(hits / len(rows) - 0.5) < chance_band(len(rows))

"""The choice tasks' rows: no answer, place, length or word is right more often than chance, and nothing leaks."""

from __future__ import annotations

from collections import Counter

import pytest

from smoa_lightning import embedded
from smoa_lightning.data.tasks import TASKS, get_task

from .frequencies import accuracy, band, chance, read, word_odds, words

CHOICE_TASKS = (
    "boolq",
    "piqa",
    "social_i_qa",
    "hellaswag",
    "winogrande",
    "arc_easy",
    "arc_challenge",
    "openbookqa",
    "choice",
)
CASES = [(name, split) for name in CHOICE_TASKS for split in ("validation", "test")]


def items(name: str, split: str):
    return [read(name, row) for row in embedded.rows(name, split)]


@pytest.mark.parametrize("name", [name for name in CHOICE_TASKS if name in TASKS])
@pytest.mark.parametrize("split", embedded.SPLITS)
def test_rows_are_in_the_schema_of_the_task(name, split):
    task = get_task(name)
    for row in embedded.rows(name, split):
        task.check(row)


@pytest.mark.parametrize("name", CHOICE_TASKS)
def test_number_of_rows_and_of_choices(name):
    most = 4000 if name == "piqa" else 1500
    assert 400 <= len(embedded.rows(name, "train")) <= most
    counts = {
        len(item.choices) for split in embedded.SPLITS for item in items(name, split)
    }  # ARC offers three to five choices
    assert counts == {
        "social_i_qa": {3},
        "hellaswag": {4},
        "openbookqa": {4},
        "choice": {4},
        "arc_easy": {3, 4, 5},
        "arc_challenge": {3, 4, 5},
    }.get(name, {2})
    for split in ("validation", "test"):
        assert 150 <= len(embedded.rows(name, split)) <= 600


@pytest.mark.parametrize("name", CHOICE_TASKS)
def test_no_row_stands_twice(name):
    seen = [
        (item.prompt, frozenset(item.choices), item.label if name == "boolq" else 0)
        for split in embedded.SPLITS
        for item in items(name, split)
    ]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(("name", "split"), [(name, split) for name in CHOICE_TASKS for split in embedded.SPLITS])
def test_every_place_is_right_equally_often(name, split):
    drawn = items(name, split)
    for count in {len(item.choices) for item in drawn}:
        labels = Counter(item.label for item in drawn if len(item.choices) == count)
        total = sum(labels.values())
        assert set(labels) == set(range(count))
        # four standard errors of a fair draw; most tasks are exact
        assert all(abs(labels[i] / total - 1 / count) < 4 * (0.25 / total) ** 0.5 for i in range(count)), labels


@pytest.mark.parametrize(("name", "split"), [case for case in CASES if case[0] != "boolq"])
def test_length_is_no_cue(name, split):
    drawn = items(name, split)
    for sign in (1, -1):
        for length in (len, lambda text: len(words(text))):
            got = accuracy(drawn, lambda item, place, f=length, s=sign: s * f(item.choices[place]))
            assert abs(got - chance(drawn)) < band(drawn)


@pytest.mark.parametrize(("name", "split"), CASES)
def test_words_of_the_choices_are_no_cue(name, split):
    score = word_odds(items(name, "train"), lambda item, place: words(item.choices[place]))
    drawn = items(name, split)
    assert accuracy(drawn, score) < chance(drawn) + band(drawn)


@pytest.mark.parametrize(("name", "split"), CASES)
def test_whole_choices_are_no_cue(name, split):
    score = word_odds(items(name, "train"), lambda item, place: [item.choices[place]])
    drawn = items(name, split)
    assert accuracy(drawn, score) < chance(drawn) + band(drawn)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_words_of_boolq_are_no_cue(split):
    for part in ("passage", "question"):

        def seen(item, place, part=part):
            text = item.prompt.rpartition(". ")[0 if part == "passage" else 2]
            return [f"{word} {item.choices[place]}" for word in words(text)]

        drawn = items("boolq", split)
        assert accuracy(drawn, word_odds(items("boolq", "train"), seen)) < 0.5 + band(drawn)


@pytest.mark.parametrize("name", CHOICE_TASKS)
def test_the_order_in_the_text_is_no_cue_for_winogrande_and_labels_mix_letters_and_digits_in_arc(name):
    if name == "winogrande":
        rows = embedded.rows(name, "validation")
        first = [row["sentence"].index(row["option1"]) < row["sentence"].index(row["option2"]) for row in rows]
        agree = sum(one == (row["answer"] == "1") for one, row in zip(first, rows, strict=True))
        assert abs(agree / len(rows) - 0.5) < 4 * (0.25 / len(rows)) ** 0.5
    elif name.startswith("arc"):
        labels = {"".join(row["choices"]["label"]) for row in embedded.rows(name, "train")}
        assert labels == {"ABC", "ABCD", "ABCDE", "123", "1234", "12345"}

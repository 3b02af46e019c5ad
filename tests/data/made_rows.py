"""Invented rows of every task in its schema, and a folder of them: what a test run of a task needs.

They are made from short word lists, not copied from the data sets, and they carry what real rows carry too: letters
beyond ASCII, marks of WikiHow, three to five choices, digits as labels.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smoa_lightning.data.tasks import get_task

Row = dict[str, Any]

NUM_ROWS = 32
NUM_TRAIN = 20  # of the first rows; the others are shared out among the other splits
TWINS_LEFT_OUT = (17, 19)  # so that two training rows stand alone in their group, and one can be held out

THINGS = ["cup", "lamp", "coat", "kettle", "bench", "ladder", "tent", "window"]
TOOLS = ["a dry towel", "some soap", "a long rope", "the café’s broom"]
WRONG = ["a wet leaf", "hot jam", "an old map", "two naïve geese"]
PEOPLE = ["Ana", "Bo", "Cem", "Dita", "Eli", "Fee", "Gus", "Hana"]
FEELINGS = ["glad", "tired", "proud and loud", "cold"]
PLACES = ["the harbour", "a mill", "the Zürich fair", "a cellar"]
MATTER = ["ice", "sand", "oak wood", "glass", "wax", "iron", "milk", "salt"]
DEEDS = ["melts in the sun", "sinks", "burns slowly", "rusts"]


def pick(words: list[str], number: int) -> str:
    """Return the word at a position, counted around the list."""
    return words[number % len(words)]


def boolq(i: int) -> Row:
    """Two questions about each passage, one to be answered with yes and one with no."""
    thing, place = pick(THINGS, i // 2), pick(PLACES, i // 4 + i // 16)
    told, asked = pick(MATTER, i // 2 + i // 16), pick(MATTER, i // 2 + i // 16 + i % 2)
    passage = f"The {thing} of {place} is made of {told}. It was moved there in {1900 + i // 2}, after a storm."
    return {"question": f"is the {thing} of {place} made of {asked}", "passage": passage, "answer": told == asked}


def piqa(i: int) -> Row:
    """Two rows for each goal, with other wrong solutions."""
    goal = f"How can I clean the {pick(THINGS, i // 2)} of {pick(PEOPLE, i // 2 + i // 16)}?"
    solutions = [f"Rub it with {pick(TOOLS, i)}.", f"Rub it gently with {pick(WRONG, i)} and wait."]
    return {"goal": goal, "sol1": solutions[i % 2], "sol2": solutions[1 - i % 2], "label": i % 2}


def social_i_qa(i: int) -> Row:
    """Two questions about each situation."""
    person, place = pick(PEOPLE, i // 2), pick(PLACES, i // 2 + i // 16)
    context = f"{person} carried a {pick(THINGS, i // 2)} to {place} and came back at {i // 2 + 1} o'clock."
    answers = [f"{pick(FEELINGS, i + j)}, as {person} often is" for j in range(3)]
    question = f"How would {person} feel?" if i % 2 else f"What would {person} be then?"
    named = dict(zip(("answerA", "answerB", "answerC"), answers, strict=True))
    return {"context": context, "question": question, **named, "label": str(i % 3 + 1)}


def hellaswag(i: int) -> Row:
    """Rows of videos, and in every fourth place a row of an article, with its marks and an empty ``ctx_b``."""
    person, thing = pick(PEOPLE, i // 2 + i // 16), pick(THINGS, i // 2)
    if i % 4 == 3:
        ctx_a, ctx_b = f"[header] How to carry a {thing} [title] Take it up. [step] Lift  it with {person}.", ""
        endings = [f"[substeps] Hold it over {pick(PLACES, i + j)}. Do not drop the {thing}." for j in range(4)]
    else:
        ctx_a, ctx_b = f"{person} stands near {pick(PLACES, i)} with a {thing}.", "a friend of Ana"
        endings = [f"lays {pick(TOOLS + WRONG, i + 3 * j)} upon the {thing}." for j in range(4)]
    row = {"ind": i, "activity_label": f"Carrying a {thing}", "ctx_a": ctx_a, "ctx_b": ctx_b}
    row |= {"ctx": f"{ctx_a} {ctx_b}", "endings": endings, "source_id": f"invented~{i // 2}"}
    return row | {"split": "train", "split_type": "indomain", "label": str(i % 4)}


def winogrande(i: int) -> Row:
    """Twin sentences: one word decides which of the two is meant."""
    one, two = pick(PEOPLE, i // 2), pick(PEOPLE, i // 2 + 1 + i // 16)
    word, answer = (("strong", "1"), ("weak", "2"))[i % 2]
    sentence = f"{one} carried the {pick(THINGS, i // 2)} for {two} because _ was {word} after the winter."
    return {"sentence": sentence, "option1": one, "option2": two, "answer": answer}


def labelled(i: int, texts: list[str]) -> Row:
    """Choices under letters, or under digits in every fifth place, and the key."""
    labels = ["1", "2", "3", "4", "5"] if i % 5 == 4 else ["A", "B", "C", "D", "E"]
    labels = labels[: len(texts)]
    return {"choices": {"text": texts, "label": labels}, "answerKey": pick(labels, i)}


def arc(i: int) -> Row:
    """Three to five choices."""
    question = (
        f"In {pick(PLACES, i // 8)}, what does {pick(MATTER, i)} do while {pick(MATTER, i + 3)} {pick(DEEDS, i)}?"
    )
    texts = [f"It {deed}." for deed in [*DEEDS, "turns to gold"][: 3 + i % 3]]
    return {"id": f"invented-{i}", "question": question, **labelled(i, texts)}


def openbookqa(i: int) -> Row:
    """Beginnings of sentences, with four choices."""
    stem = f"When {pick(MATTER, i)} lies in {pick(PLACES, i // 8)} beside {pick(MATTER, i + 1)}, then"
    return {"id": f"invented-{i}", "question_stem": stem, **labelled(i, [f"the {m} cools" for m in MATTER[:4]])}


# ---- replies


def commonsense_instruct(i: int) -> Row:
    """Two layouts of LLM-Adapters in turns; every second row has its empty input, as all of the published rows."""
    if i % 4 < 2:
        thing, answer = pick(THINGS, i), f"solution{i % 2 + 1}"
        task = f"solution to the question: Clean the {thing} of {pick(PEOPLE, i // 4)}"
        choices = f"Solution1: {pick(TOOLS, i)}\n\nSolution2: {pick(WRONG, i)}"
        instruction = f"Please choose the correct {task}\n\n{choices}\n\nAnswer format: solution1/solution2"
    else:
        answer = ("true", "false")[i % 2]
        question = f"is {pick(MATTER, i)} found in {pick(PLACES, i // 8)}?"
        instruction = f"Please answer the following question with true or false, question: {question}"
        instruction += "\n\nAnswer format: true/false"
    row = {"instruction": instruction, "output": f"the correct answer is {answer}", "answer": answer}
    return row | ({"input": ""} if i % 2 else {})


def gsm8k(i: int) -> Row:
    """Sums with calculator annotations; in every fifth place a number with a comma."""
    first, second = (1200, 34 + i) if i % 5 == 4 else (i + 3, i % 7 + 2)
    person, thing = pick(PEOPLE, i), pick(THINGS, i // 8)
    question = f"{person} has {first} {thing}s and gets {second} more. How many {thing}s does {person} have?"
    steps = f"{person} has {first} + {second} = <<{first}+{second}={first + second}>>{first + second} {thing}s."
    return {"question": question, "answer": f"{steps}\n#### {first + second:,}"}


def metamath_qa(i: int) -> Row:
    """Two rows of each original question: the question itself, and one that asks backwards."""
    known, more = i // 2 + 2, i // 2 % 5 + 1
    person, thing = pick(PEOPLE, i // 2), pick(THINGS, i // 16)
    asked = f"{person} finds {known} {thing}s and then {more} more. How many are there?"
    if i % 2:
        query, answer = f"{person} finds x {thing}s and then {more} more, {known + more} in all. What is x?", known
    else:
        query, answer = asked, known + more
    response = f"We add {known} and {more} for {known + more}.\nThe answer is: {answer}"
    kind = ("GSM_AnsAug", "GSM_FOBAR")[i % 2]
    return {"type": kind, "query": query, "original_question": asked, "response": response}


def convai2(i: int) -> Row:
    """Two dialogues of each persona, of one to three replies."""
    thing, person = pick(THINGS, i // 2), pick(PEOPLE, i // 2 + i // 16)
    personality = [f"i own a {thing} .", f"my best friend is {person} .", "i like café au lait ."]
    turns = [f"hi ! i am number {i} . what do you own ?", f"a {thing} , it is old ."]
    turns += [f"who gave it to you in {pick(PLACES, i)} ?", f"{person} did .", "nice !", "i know . coffee ?"]
    return {"personality": personality, "dialog": turns[: 2 + 2 * (i % 3)]}


def daily_dialog(i: int) -> Row:
    """Two conversations with each first turn, of two to four turns; acts and emotions are dropped."""
    thing, place = pick(THINGS, i // 2), pick(PLACES, i // 2 + i // 16)
    turns = [
        f"Where is the {thing} of {place} , number {i // 2} ? ",
        f" {pick(PEOPLE, i)} has it . ",
        "Why ?",
        "No idea .",
    ]
    turns = turns[: 2 + i % 3]
    return {"dialog": turns, "act": [1] * len(turns), "emotion": [0] * len(turns)}


def glue(*fields: str, labels: int = 2) -> Callable[[int], Row]:
    """Two rows with each first text, of different labels; without labels a number from 0 to 5."""

    def make(i: int) -> Row:
        first = f"The {pick(THINGS, i // 2)} of {pick(PEOPLE, i // 2 + i // 16)} is naïve."
        texts = (first, f"It is {pick(FEELINGS, i)} and made of {pick(MATTER, i)}.")
        if len(fields) == 1:
            texts = (f"{first} {texts[1]}",)
        return {**dict(zip(fields, texts, strict=True)), "label": i % labels if labels else i % 11 / 2, "idx": i}

    return make


# ---- rows of one's own


def choice(i: int) -> Row:
    """Labels of each kind: a position, a letter, the text, and names of the choices."""
    choices = [f"the {pick(MATTER, i + j)}" for j in range(2 + i % 3)]
    right = i % len(choices)
    label: int | str = [right, "ABCD"[right], choices[right], "wxyz"[right]][i % 4]
    row = {"prompt": f"Question {i}: what {pick(DEEDS, i)}?\nAnswer:", "choices": choices, "label": label}
    return row | ({"labels": list("wxyz"[: len(choices)])} if i % 4 == 3 else {})


def instruction(i: int) -> Row:
    """Every second row has an input."""
    thing = pick(THINGS, i)
    row = {
        "instruction": f"Describe number {i}, a {thing}.",
        "output": f"The {thing} is {pick(FEELINGS, i)}.\n\nReally.",
    }
    return row | ({"input": f"It stands in {pick(PLACES, i)}."} if i % 2 else {})


def chat(i: int) -> Row:
    """Conversations of one to three replies, in every second row under a system message."""
    thing = pick(THINGS, i)
    said = [f"Who has {thing} {i}?", f"{pick(PEOPLE, i)} has it.", "And then?", "Nobody.\nIt is lost.", "Oh.", "Yes."]
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said[: 2 + 2 * (i % 3)])
    ]
    return {"messages": ([{"role": "system", "content": "Be brief."}] if i % 2 else []) + messages}


def phone_book(i: int) -> Row:
    """Digits alone, or in groups."""
    number = f"{7919 * (i + 1) % 10000:04d}"
    return {"name": f"{pick(PEOPLE, i)} of {pick(PLACES, i // 8)}", "number": number if i % 2 else "-".join(number)}


# ---- images


def images(image: str, label: str, classes: int) -> Callable[[int], Row]:
    """Pictures of 6 x 5 pixels in PPM, no two of them equal, with the label as a number."""

    def make(i: int) -> Row:
        content = b"P6 6 5 255\n" + bytes((i * 7 + n * 11) % 256 for n in range(90))
        return {image: {"bytes": base64.b64encode(content).decode(), "path": None}, label: i % classes}

    return make


MAKERS = {
    "boolq": boolq,
    "piqa": piqa,
    "social_i_qa": social_i_qa,
    "hellaswag": hellaswag,
    "winogrande": winogrande,
    "arc_easy": arc,
    "arc_challenge": arc,
    "openbookqa": openbookqa,
    "commonsense_instruct": commonsense_instruct,
    "gsm8k": gsm8k,
    "metamath_qa": metamath_qa,
    "convai2": convai2,
    "daily_dialog": daily_dialog,
    "choice": choice,
    "instruction": instruction,
    "chat": chat,
    "phone_book": phone_book,
    **dict.fromkeys(("cola", "sst2"), glue("sentence")),
    **dict.fromkeys(("mrpc", "rte"), glue("sentence1", "sentence2")),
    **dict.fromkeys(("mnli", "mnli_mismatched"), glue("premise", "hypothesis", labels=3)),
    "stsb": glue("sentence1", "sentence2", labels=0),
    "qqp": glue("question1", "question2"),
    "qnli": glue("question", "sentence"),
    "cifar10": images("img", "label", 10),
    "cifar100": images("img", "fine_label", 100),
    **dict.fromkeys(("sun397", "dtd", "stl10", "digits", "image_classification"), images("image", "label", 8)),
}

#: task name -> its rows
ROWS: dict[str, list[Row]] = {task: [make(i) for i in range(NUM_ROWS)] for task, make in MAKERS.items()}


def write_folder(folder: Path, task: str) -> None:
    """Write ``train.jsonl`` and a file for each other labelled split, that of the report in any case.

    No row stands in two of them.
    """
    splits = list(dict.fromkeys([*get_task(task).splits[1:], get_task(task).report_split]))
    parts = {split: ROWS[task][NUM_TRAIN:][number :: len(splits)] for number, split in enumerate(splits)}
    train = [row for number, row in enumerate(ROWS[task][:NUM_TRAIN]) if number not in TWINS_LEFT_OUT]
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in {"train": train, **parts}.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")

"""The generation protocol of the choice tasks: the wording of the published files, the answer in a reply."""

from __future__ import annotations

import pytest

from smoa_lightning.data.encoding.encode import move_spaces
from smoa_lightning.data.tasks import COMMONSENSE_INSTRUCT, EIGHT, TASKS, RowError
from smoa_lightning.data.tasks.instruct import alpaca

from ..made_rows import ROWS

HEAD = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n"
)
ANSWERS = {"A": "ice", "B": "steam", "C": "mud"}

# Every layout was compared with rows of the published files; the words here are ours.
GOLDEN = {
    "boolq": (
        {"question": "is ice warm", "passage": "Ice is cold.", "answer": False},
        "Please answer the following question with true or false, question: is ice warm?\n\nAnswer format: true/false",
        "false",
    ),
    "piqa": (
        {"goal": "Dry a cup.", "sol1": "Use a towel.", "sol2": "Use a sieve.", "label": 0},
        "Please choose the correct solution to the question: Dry a cup.\n\nSolution1: Use a towel.\n\n"
        "Solution2: Use a sieve.\n\nAnswer format: solution1/solution2",
        "solution1",
    ),
    "social_i_qa": (
        {"context": "Ann fell.", "question": "Why?", "label": "2"}
        | {"answerA": "rain", "answerB": "a cat", "answerC": "fun"},
        "Please choose the correct answer to the question: Ann fell. Why?\n\nAnswer1: rain Answer2: a cat Answer3: fun"
        "\n\nAnswer format: answer1/answer2/answer3",
        "answer2",
    ),
    "hellaswag": (
        {"activity_label": "Baking", "ctx_a": "[header] How to bake [title] Take flour.", "ctx_b": "then she"}
        | {"endings": ["flies.", "[step] stirs.", "is  milk.", "eats."], "source_id": "w~1", "label": "3"},
        "Please choose the correct ending to complete the given sentence: Baking: [header] How to bake [title] Take "
        "flour. then she\n\nEnding1: flies. Ending2: [step] stirs. Ending3: is  milk. Ending4: eats.\n\n"
        "Answer format: ending1/ending2/ending3/ending4",
        "ending4",
    ),
    "winogrande": (
        {"sentence": "Ann feeds Eve, since _ is kind.", "option1": "Ann", "option2": "Eve", "answer": "1"},
        "Please choose the correct answer to fill in the blank to complete the given sentence: Ann feeds Eve, since _ "
        "is kind.\n\nOption1: Ann Option2: Eve Answer format: option1/option2",
        "option1",
    ),
    **dict.fromkeys(
        ("arc_easy", "arc_challenge"),
        (
            {"question": "What is hot?", "choices": {"text": [*ANSWERS.values()], "label": [*ANSWERS]}}
            | {"answerKey": "B"},
            "Please choose the correct answer to the question: What is hot?\n\nAnswer1: ice Answer2: steam Answer3: mud"
            "\n\nAnswer format: answer1/answer2/answer3",
            "answer2",
        ),
    ),
    "openbookqa": (
        {"question_stem": "What burns is", "choices": {"text": ["ice", "tar"], "label": ["1", "2"]}, "answerKey": "2"},
        "Please choose the correct answer to the question: What burns is\n\nAnswer1: ice Answer2: tar\n\n"
        "Answer format: answer1/answer2",
        "answer2",
    ),
}


def test_there_is_a_layout_for_each_of_the_eight():
    assert set(GOLDEN) == {task.name for task in EIGHT}
    assert all(task.protocols == (task.likelihood, task.generation) for task in EIGHT)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    row, instruction, answer = GOLDEN[name]
    task = TASKS[name]
    example = task.protocol("generation").example(task.check(row))
    assert example.prompt == f"{HEAD}{instruction}\n\n### Response:\n"
    assert example.response == f"the correct answer is {answer}"
    assert example.answer == answer
    assert example.reference == example.response
    assert example.shortened() is None
    # the model sees the line break as the beginning of its reply
    prompt, response = move_spaces(*example.target)
    assert prompt.endswith("### Response:")
    assert response == f"\nthe correct answer is {answer}"


@pytest.mark.parametrize("name", [task.name for task in EIGHT] + ["commonsense_instruct", "choice"])
def test_every_gold_reply_is_read_as_its_answer(name):
    task = TASKS[name]
    answers = set()
    for row in ROWS[name]:
        example = task.generation.example(task.check(row))
        assert task.generation.answer(example.response) == example.answer
        assert example.answer in example.prompt
        assert task.generation.answer("I do not know.") is None
        answers.add(example.answer)
    assert len(answers) >= 2
    assert (task.generation.metric, task.generation.selection_metric) == ("acc", "acc")


def test_an_answer_that_is_not_offered_is_wrong_and_not_unparsed():
    assert TASKS["arc_easy"].generation.answer("the correct answer is answer5") == "answer5"
    assert TASKS["arc_easy"].generation.answer("the correct answer is answer6") is None


def test_the_input_has_its_own_section():
    assert alpaca("Add.", "1 and 2") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n"
    )
    assert alpaca("Add.", " ") == alpaca("Add.")


ROW = {"instruction": "Pick.\n\nAnswer format: true/false", "input": "", "output": "the correct answer is true"}


@pytest.mark.parametrize("change", [{}, {"input": None}, {"answer": "True "}])
def test_commonsense_rows(change):
    row = COMMONSENSE_INSTRUCT.check({**ROW, "answer": "true", **change})
    example = COMMONSENSE_INSTRUCT.generation.example(row)
    assert example.prompt == f"{HEAD}{ROW['instruction']}\n\n### Response:\n"
    assert (example.response, example.answer) == ("the correct answer is true", "true")
    other = COMMONSENSE_INSTRUCT.check(
        {"instruction": "PICK. answer  format: TRUE/false", "output": "false", "answer": "false"}
    )
    assert COMMONSENSE_INSTRUCT.group(row) == COMMONSENSE_INSTRUCT.group(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": ""}, "'instruction' must not be empty"),
        ({"input": 5}, "'input' must be text, not a whole number"),
        ({"output": None}, r"'output' must be text, not missing \(null\)"),
        ({"answer": "maybe"}, "'answer' is 'maybe', but must be a label word"),
        (
            {"answer": "false"},
            "'output' does not say 'false', which field 'answer' gives: 'the correct answer is true'",
        ),
    ],
)
def test_bad_commonsense_fields(change, message):
    with pytest.raises(RowError, match=message):
        COMMONSENSE_INSTRUCT.check({**ROW, "answer": "true", **change})

"""School science: ARC-Easy, ARC-Challenge and OpenBookQA. Their rows have a label for each choice."""

from __future__ import annotations

from dataclasses import replace

from smoa_lightning.data.tasks import instruct
from smoa_lightning.data.tasks.base import (
    ChoiceExample,
    LabelledTexts,
    Likelihood,
    Name,
    ReplyExample,
    Row,
    RowError,
    Task,
    Text,
    fold,
)


def key_position(row: Row) -> int:
    """Return the position of the answer key among the labels, which are letters or digits.

    Raises:
        RowError: the key is not a label.
    """
    labels, key = row["choices"]["label"], row["answerKey"].strip()
    if key not in labels:
        raise RowError(f"field 'answerKey' is {key!r}, but the labels are {', '.join(map(repr, labels))}")
    return int(labels.index(key))


def labelled_rule(row: Row) -> None:
    """Refuse an answer key that is not a label.

    Raises:
        RowError: names key and labels.
    """
    key_position(row)


def arc_layout(row: Row) -> Row:
    """Change the original layout, where ``question`` is an object with ``stem`` and ``choices``, to that of the hub."""
    return _flat(row, "question")


def openbookqa_layout(row: Row) -> Row:
    """Change the original layout, where ``question`` is an object with ``stem`` and ``choices``, to that of the hub."""
    return _flat(row, "question_stem")


def _flat(row: Row, stem: str) -> Row:
    question = row.get("question")
    if not isinstance(question, dict):
        return row
    return {**row, **{name: question[own] for name, own in ((stem, "stem"), ("choices", "choices")) if own in question}}


def arc_example(row: Row) -> ChoiceExample:
    r"""Return the ARC item with the prompt of EleutherAI's lm-evaluation-harness (``arc_easy``, ``arc_challenge``).

    >>> choices = {"text": ["ice", "steam", "mud"], "label": ["1", "2", "3"]}
    >>> arc_example({"question": "What is hot?", "choices": choices, "answerKey": "2"})
    ChoiceExample(prompt='Question: What is hot?\nAnswer:', choices=(' ice', ' steam', ' mud'), label=1)
    """
    return ChoiceExample(f"Question: {row['question']}\nAnswer:", _choices(row), key_position(row))


def arc_group(row: Row) -> str:
    """Return the question in small letters with single spaces: a few questions have several sets of choices."""
    return fold(row["question"])


def arc_instruction(row: Row) -> ReplyExample:
    """Return the ARC item of the generation protocol; labels are numbers in the order of the choices."""
    return instruct.question(row["question"], row["choices"]["text"], key_position(row))


def openbookqa_example(row: Row) -> ChoiceExample:
    """Return the OpenBookQA item with the prompt of EleutherAI's lm-evaluation-harness (its task ``openbookqa``).

    The prompt is the question alone, which is often the beginning of a sentence.

    >>> choices = {"text": ["ice", "steam"], "label": ["A", "B"]}
    >>> openbookqa_example({"question_stem": "What burns is", "choices": choices, "answerKey": "B"})
    ChoiceExample(prompt='What burns is', choices=(' ice', ' steam'), label=1)
    """
    return ChoiceExample(row["question_stem"], _choices(row), key_position(row))


def openbookqa_instruction(row: Row) -> ReplyExample:
    """Return the OpenBookQA item of the generation protocol."""
    return instruct.question(row["question_stem"], row["choices"]["text"], key_position(row))


def openbookqa_group(row: Row) -> str:
    """Return the question in small letters with single spaces: some questions have several sets of choices."""
    return fold(row["question_stem"])


def _choices(row: Row) -> tuple[str, ...]:
    return tuple(f" {text}" for text in row["choices"]["text"])


# Both configurations are Parquet files at this commit. All three splits have labels, and results are reported on test.
# lm-evaluation-harness prints acc and acc_norm for both sets. Papers usually report acc of the easy set and acc_norm of
# the challenge set. The first Open LLM Leaderboard used acc_norm of the challenge set and of HellaSwag.
ARC_EASY = Task(
    name="arc_easy",
    version=1,
    hub_repository="allenai/ai2_arc",
    hub_revision="210d026faf9955653af8916fad021475a3f00453",
    hub_config="ARC-Easy",
    schema={"question": Text(), "choices": LabelledTexts(), "answerKey": Name()},
    likelihood=Likelihood(arc_example),
    generation=instruct.generation(arc_instruction, instruct.ANSWER_WORDS),
    group=arc_group,
    rule=labelled_rule,
    normalise=arc_layout,
    licence="CC-BY-SA-4.0",
    reference="arXiv:1803.05457",
    report_split="test",
)

ARC_CHALLENGE = replace(
    ARC_EASY, name="arc_challenge", hub_config="ARC-Challenge", likelihood=Likelihood(arc_example, "acc_norm")
)

# Parquet files at this commit. The configuration `main` has no column for the fact behind an item. All three splits
# have labels.
OPENBOOKQA = Task(
    name="openbookqa",
    version=1,
    hub_repository="allenai/openbookqa",
    hub_revision="388097ea7776314e93a529163e0fea805b8a6454",
    hub_config="main",
    schema={"question_stem": Text(), "choices": LabelledTexts(), "answerKey": Name()},
    likelihood=Likelihood(openbookqa_example, "acc_norm"),
    generation=instruct.generation(openbookqa_instruction, instruct.ANSWER_WORDS),
    group=openbookqa_group,
    rule=labelled_rule,
    normalise=openbookqa_layout,
    reads=("question",),
    licence="Apache-2.0",
    reference="arXiv:1809.02789",
    report_split="test",
)

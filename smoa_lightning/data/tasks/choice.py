"""Everyday common sense: PIQA and SIQA. The likelihood is that of the answer's text, not of its letter."""

from __future__ import annotations

from smoa_lightning.data.tasks import instruct
from smoa_lightning.data.tasks.base import ChoiceExample, Label, Likelihood, Row, RowError, Task, Text, TextLabel, fold


def piqa_example(row: Row) -> ChoiceExample:
    r"""Return the PIQA item with the prompt of EleutherAI's lm-evaluation-harness, so that scores can be compared.

    >>> piqa_example({"goal": "Dry a cup.", "sol1": "Use a towel.", "sol2": "Use a sieve.", "label": 0})
    ChoiceExample(prompt='Question: Dry a cup.\nAnswer:', choices=(' Use a towel.', ' Use a sieve.'), label=0)
    """
    return ChoiceExample(f"Question: {row['goal']}\nAnswer:", (f" {row['sol1']}", f" {row['sol2']}"), row["label"])


def piqa_group(row: Row) -> str:
    """Return the goal in small letters with single spaces: PIQA has the same goal with different solutions."""
    return fold(row["goal"])


# baber/piqa is the Parquet copy that lm-evaluation-harness reads: the same items, no loading script. A commit cannot
# change. In ybisk/piqa's refs/convert/parquet, which a robot rewrites, the names of configurations have changed.
PIQA = Task(
    name="piqa",
    version=1,
    hub_repository="baber/piqa",
    hub_revision="142f6d7367fd9877f0fb3b5734ea6a545f54cdd1",
    schema={"goal": Text(), "sol1": Text(), "sol2": Text(), "label": Label((0, 1))},
    likelihood=Likelihood(piqa_example),
    generation=instruct.generation(instruct.piqa, instruct.PIQA_WORDS),
    group=piqa_group,
    licence="AFL-3.0",
    reference="arXiv:1911.11641",
)


def social_i_qa_example(row: Row) -> ChoiceExample:
    r"""Return the SIQA item with the prompt of EleutherAI's lm-evaluation-harness (its task ``social_iqa``).

    >>> row = {"context": "Ann fell.", "question": "How does Ann feel?", "label": 2}
    >>> social_i_qa_example({**row, "answerA": "glad", "answerB": "proud", "answerC": "hurt"})
    ChoiceExample(prompt='Q: Ann fell. How does Ann feel?\nA:', choices=(' glad', ' proud', ' hurt'), label=2)
    """
    choices = tuple(f" {row[name]}" for name in ("answerA", "answerB", "answerC"))
    return ChoiceExample(f"Q: {row['context']} {row['question']}\nA:", choices, row["label"])


def social_i_qa_group(row: Row) -> str:
    """Return the context in small letters with single spaces: one situation has several questions."""
    return fold(row["context"])


def social_i_qa_layout(row: Row) -> Row:
    """Change the original layout, where ``correct`` is the letter of the right answer, to that of the hub."""
    correct = row.get("correct")
    letter = correct.strip().upper() if isinstance(correct, str) else None
    if "label" in row or letter is None:
        return row
    if letter not in ("A", "B", "C"):
        raise RowError(f"field 'correct' is {correct!r}, but must be one of 'A', 'B', 'C'")
    return {**row, "label": str("ABC".index(letter) + 1)}


# The commit that added Parquet files to the repository. Its loading script is not used.
SOCIAL_I_QA = Task(
    name="social_i_qa",
    version=1,
    hub_repository="allenai/social_i_qa",
    hub_revision="6db3dcea20d5430c3dd74bf85fe9ca87268ea91b",
    schema={
        "context": Text(),
        "question": Text(),
        "answerA": Text(),
        "answerB": Text(),
        "answerC": Text(),
        "label": TextLabel(("1", "2", "3")),
    },
    likelihood=Likelihood(social_i_qa_example),
    generation=instruct.generation(instruct.social_i_qa, instruct.ANSWER_WORDS),
    group=social_i_qa_group,
    normalise=social_i_qa_layout,
    reads=("correct",),
    licence="CC-BY-4.0 (as usually listed)",
    reference="arXiv:1904.09728",
    splits=("train", "validation"),
)

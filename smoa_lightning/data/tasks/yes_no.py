"""Yes-or-no questions about a passage: BoolQ."""

from __future__ import annotations

from smoa_lightning.data.tasks import instruct
from smoa_lightning.data.tasks.base import ChoiceExample, Likelihood, Row, Task, Text, Truth, fold


def boolq_example(row: Row) -> ChoiceExample:
    r"""Return the BoolQ item with the prompt of EleutherAI's lm-evaluation-harness (its task ``boolq``, version 2).

    >>> boolq_example({"passage": "Ice is cold.", "question": "is ice warm", "answer": 0})
    ChoiceExample(prompt='Ice is cold.\nQuestion: is ice warm?\nAnswer:', choices=(' no', ' yes'), label=0)
    """
    return ChoiceExample(f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:", (" no", " yes"), row["answer"])


def boolq_group(row: Row) -> str:
    """Return the passage in small letters with single spaces: one passage has several questions."""
    return fold(row["passage"])


# Parquet files only at this commit. lm-evaluation-harness reads SuperGLUE's copy (aps/super_glue, boolq). There the
# passages begin with the title of the article ("Persian language -- Persian is ..."); the original rows do not.
BOOLQ = Task(
    name="boolq",
    version=1,
    hub_repository="google/boolq",
    hub_revision="35b264d03638db9f4ce671b711558bf7ff0f80d5",
    schema={"question": Text(), "passage": Text(), "answer": Truth()},
    likelihood=Likelihood(boolq_example),
    generation=instruct.generation(instruct.boolq, instruct.BOOLQ_WORDS),
    group=boolq_group,
    licence="CC-BY-SA-3.0",
    reference="arXiv:1905.10044",
    splits=("train", "validation"),
)

"""Tasks that offer whole answers to choose from: the choices' texts are scored, not their letters."""

from __future__ import annotations

from smoa_lightning.data.tasks.base import ChoiceExample, Label, Row, Task, Text


def piqa_example(row: Row) -> ChoiceExample:
    r"""Return PIQA's item with the prompt of EleutherAI's lm-evaluation-harness, so that the scores can be compared.

    >>> piqa_example({"goal": "Dry a cup.", "sol1": "Use a towel.", "sol2": "Use a sieve.", "label": 0})
    ChoiceExample(prompt='Question: Dry a cup.\nAnswer:', choices=(' Use a towel.', ' Use a sieve.'), label=0)
    """
    return ChoiceExample(f"Question: {row['goal']}\nAnswer:", (f" {row['sol1']}", f" {row['sol2']}"), row["label"])


def piqa_group(row: Row) -> str:
    """Return the goal in small letters with single spaces: PIQA asks one goal several times with other solutions."""
    return " ".join(row["goal"].lower().split())


# baber/piqa is the Parquet copy that lm-evaluation-harness reads: the same items, no loading script. A commit can not
# move, unlike ybisk/piqa's refs/convert/parquet, which a robot rewrites and under which configuration names changed.
PIQA = Task(
    name="piqa",
    version=1,
    hub_repository="baber/piqa",
    hub_revision="142f6d7367fd9877f0fb3b5734ea6a545f54cdd1",
    schema={"goal": Text(), "sol1": Text(), "sol2": Text(), "label": Label((0, 1))},
    example=piqa_example,
    group=piqa_group,
    metric="acc",
    licence="AFL-3.0",
    reference="arXiv:1911.11641",
)

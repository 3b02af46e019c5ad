"""Texts to complete: HellaSwag with one of four endings, WinoGrande with one of two options for a blank."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from smoa_lightning.data.tasks import instruct
from smoa_lightning.data.tasks.base import ChoiceExample, Likelihood, Row, RowError, Task, Text, TextLabel, Texts, fold

# ---- HellaSwag


def clean(text: str) -> str:
    """Return a text without the marks of HellaSwag's WikiHow part, as in EleutherAI's lm-evaluation-harness.

    ``[title]`` ends a sentence, other words in square brackets are removed, and two spaces become one. The space after
    a mark at the start stays, so that the choices are exactly those of the harness.

    >>> clean("How to knit [title] Buy wool. [step] Choose  a colour.")
    'How to knit. Buy wool. Choose a colour.'
    """
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def hellaswag_example(row: Row) -> ChoiceExample:
    """Return the HellaSwag item with the prompt of EleutherAI's lm-evaluation-harness (its task ``hellaswag``).

    >>> row = {"activity_label": "Baking", "ctx_a": "Ann has flour.", "ctx_b": "she", "label": 1}
    >>> hellaswag_example({**row, "endings": ["flies.", "adds milk.", "is flour.", "[step] sleeps."]}).pairs[:2]
    [('Baking: Ann has flour. She', ' flies.'), ('Baking: Ann has flour. She', ' adds milk.')]
    """
    prompt = clean(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    return ChoiceExample(prompt, tuple(f" {clean(ending)}" for ending in row["endings"]), row["label"])


def hellaswag_group(row: Row) -> str:
    """Return the video or article of a row: its scenes follow each other, with the same people and things."""
    return str(row["source_id"])


def hellaswag_rule(row: Row) -> None:
    """Refuse an ending that is empty without its marks.

    Raises:
        RowError: names the ending.
    """
    for number, ending in enumerate(row["endings"], start=1):
        if not clean(ending).strip():
            raise RowError(f"field 'endings' is a list whose entry {number} holds nothing but marks: {ending!r}")


# Parquet files only at this commit. The test split has no public labels.
HELLASWAG = Task(
    name="hellaswag",
    version=1,
    hub_repository="Rowan/hellaswag",
    hub_revision="218ec52e09a7e7462a5400043bb9a69a41d06b76",
    schema={
        "activity_label": Text(),
        "ctx_a": Text(),
        "ctx_b": Text(allow_empty=True),  # the WikiHow part has it empty
        "endings": Texts(4),
        "source_id": Text(),
        "label": TextLabel(("0", "1", "2", "3")),
    },
    likelihood=Likelihood(hellaswag_example, "acc_norm"),
    generation=instruct.generation(instruct.hellaswag, instruct.HELLASWAG_WORDS),
    group=hellaswag_group,
    rule=hellaswag_rule,
    licence="MIT",
    reference="arXiv:1905.07830",
    splits=("train", "validation"),
)

# ---- WinoGrande

BLANK = "_"


@dataclass(frozen=True)
class Sentence:
    """A sentence with a blank, ``_``, and a text after the blank. The text after the blank is scored."""

    def check(self, value: Any) -> str:
        """Return the sentence unchanged."""
        before, blank, after = Text().check(value).partition(BLANK)
        if not blank:
            raise RowError(f"has no blank {BLANK!r}")
        if not after.strip():
            raise RowError(f"has nothing after its blank {BLANK!r}, so there is nothing to score")
        return before + blank + after

    def parse(self, text: str) -> str:
        """Return the text unchanged."""
        return text


def winogrande_example(row: Row) -> ChoiceExample:
    """Return the WinoGrande item for partial evaluation, as in lm-evaluation-harness (its task ``winogrande``).

    The prompt is the sentence before the blank with an option in place of the blank. The response is the text after the
    blank: one response after two prompts (arXiv 1806.02847). So ``acc_norm`` and ``acc_token`` equal ``acc``.

    >>> row = {"sentence": "Ann feeds Eve, since _ is kind.", "option1": "Ann", "option2": "Eve", "answer": 0}
    >>> winogrande_example(row).pairs
    [('Ann feeds Eve, since Ann', ' is kind.'), ('Ann feeds Eve, since Eve', ' is kind.')]
    """
    before, _, after = row["sentence"].partition(BLANK)
    prompts = tuple(before + row[name] for name in ("option1", "option2"))
    return ChoiceExample(prompts, (f" {after.strip()}",) * 2, row["answer"])


def winogrande_group(row: Row) -> str:
    """Return the two options in a fixed order: a sentence and its twin, with one or two different words, share them.

    Some pairs of common first names are also the options of unrelated sentences. These sentences are then one group,
    and ``train_report_overlap`` counts them.
    """
    return " | ".join(sorted(fold(row[name]) for name in ("option1", "option2")))


# The commit holds each size as Parquet files; `xl` is the whole training set. The test split has no public labels.
WINOGRANDE = Task(
    name="winogrande",
    version=1,
    hub_repository="allenai/winogrande",
    hub_revision="01e74176c63542e6b0bcb004dcdea22d94fb67b5",
    hub_config="winogrande_xl",
    schema={"sentence": Sentence(), "option1": Text(), "option2": Text(), "answer": TextLabel(("1", "2"))},
    likelihood=Likelihood(winogrande_example),
    generation=instruct.generation(instruct.winogrande, instruct.WINOGRANDE_WORDS),
    group=winogrande_group,
    licence="CC-BY (no version is named)",
    reference="arXiv:1907.10641",
    splits=("train", "validation"),
)

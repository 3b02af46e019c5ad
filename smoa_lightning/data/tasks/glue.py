"""GLUE (arXiv 1804.07461): eight tasks whose label a new head predicts from a sentence or from a pair.

The labels of the test splits are not public, so that the report is on the validation split. MNLI has two of them: rows
from the genres of the training rows (matched), and from others (mismatched).
"""

from __future__ import annotations

from dataclasses import replace

from smoa_lightning.data.tasks.base import (
    Classification,
    LabelledExample,
    Labelling,
    Regression,
    Row,
    Task,
    Text,
    fold,
)
from smoa_lightning.data.tasks.label_fields import ClassLabel, Number

LICENCE = "that of its source; GLUE has none of its own"
ENTAILMENT = ("entailment", "not_entailment")


def _task(name: str, fields: tuple[str] | tuple[str, str], names: tuple[str, ...], metric: str, reference: str) -> Task:
    """Return a task in the schema of ``nyu-mll/glue``; without names of classes its label is a number from 0 to 5."""

    def example(row: Row) -> LabelledExample:
        return LabelledExample(tuple(row[field] for field in fields), row["label"])

    def group(row: Row) -> str:
        return fold(row[fields[0]])

    protocol: Labelling = Classification(example, names, metric) if names else Regression(example, metric=metric)
    label = ClassLabel(names) if names else Number(0, 5)
    return Task(
        name=name,
        version=1,
        hub_repository="nyu-mll/glue",
        hub_revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        hub_config=name,
        schema={**{field: Text() for field in fields}, "label": label},
        reads=("idx",),
        labelling=protocol,
        group=group,
        licence=LICENCE,
        reference=reference,
        splits=("train", "validation"),
    )


COLA = _task("cola", ("sentence",), ("unacceptable", "acceptable"), "mcc", "arXiv:1805.12471")
SST2 = _task("sst2", ("sentence",), ("negative", "positive"), "acc", "Socher et al. 2013, D13-1170")
_SENTENCES = ("sentence1", "sentence2")
MRPC = _task("mrpc", _SENTENCES, ("not_equivalent", "equivalent"), "f1", "Dolan and Brockett 2005, I05-5002")
STSB = _task("stsb", _SENTENCES, (), "pearson", "arXiv:1708.00055")
QQP = _task("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), "f1", "arXiv:1804.07461")
QNLI = _task("qnli", ("question", "sentence"), ENTAILMENT, "acc", "arXiv:1606.05250")
RTE = _task("rte", _SENTENCES, ENTAILMENT, "acc", "arXiv:1804.07461")
MNLI = replace(
    _task("mnli", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), "acc", "arXiv:1704.05426"),
    report_split="validation_matched",
    splits=("train", "validation_matched", "validation_mismatched"),
)
# The same data set with the other report: data.report_tasks: [mnli, mnli_mismatched].
MNLI_MISMATCHED = replace(MNLI, name="mnli_mismatched", report_split="validation_mismatched")
GLUE = (COLA, SST2, MRPC, STSB, QQP, QNLI, RTE, MNLI, MNLI_MISMATCHED)

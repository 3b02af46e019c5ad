"""The table of metrics against what the evaluators return, and against the rest of the package."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import smoa_lightning
from smoa_lightning.data.batches.collate import collate_choices, collate_labels, collate_replies
from smoa_lightning.data.encoding.encode_examples import Encoding, encode_choices, encode_replies
from smoa_lightning.data.encoding.items import LabelledItem
from smoa_lightning.data.tasks import TASKS, ChoiceExample, Generation, ReplyExample
from smoa_lightning.embedded import backbone_folder
from smoa_lightning.evaluation.choice import ChoiceEvaluator
from smoa_lightning.evaluation.labels import LabelEvaluator
from smoa_lightning.evaluation.reply import ReplyEvaluator
from smoa_lightning.evaluation.scoring import ChoiceScores
from smoa_lightning.evaluation.tasks import TaskEvaluation
from smoa_lightning.evaluation.text import reply_metrics
from smoa_lightning.records.metric_table import ACCURACIES, COMMON, COUNT, METRICS, Source, better
from smoa_lightning.training.callbacks.forgetting import document_scores, general_metrics, text_rows

PACKAGE = Path(smoa_lightning.__file__).parent
CHOICES = [
    ChoiceExample("To mop up a puddle, use", (" a sponge.", " a very long fork."), 0),
    ChoiceExample("To crack a nut, use", (" something hard.", " a towel."), 0),
    ChoiceExample("What burns well? A", (" sponge.", " log."), 1),
]
REPLIES = [
    ReplyExample("", ("To mop up a puddle, use",), " a sponge.", answer="sponge"),
    ReplyExample("", ("To crack a nut, you need something that",), " is hard.", answer="hard"),
    ReplyExample("", ("What burns well? A log,",), " a newspaper.", answer="newspaper"),
]
Scored = tuple[dict[str, float], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(backbone_folder(), local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(backbone_folder(), local_files_only=True, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def evaluated(model: Any, tokenizer: Any, encoder: Path) -> dict[Source, Scored]:
    """What each evaluator returns for three items: its metrics and its records of the items."""
    texts = Generation(lambda row: REPLIES[0], "perplexity", max_new_tokens=6, stop=(".",))
    said = iter(["sponge", None, "log"])
    answers = Generation(lambda row: REPLIES[0], "acc", answer=lambda text: next(said), max_new_tokens=6, stop=(".",))
    codes = Generation(lambda row: REPLIES[0], "stored_bits", lambda text: "x", max_new_tokens=1, code_bits=len)
    choice, replies, asked, stored = (
        ChoiceEvaluator(),
        *(ReplyEvaluator(protocol, tokenizer, bert_score=str(encoder)) for protocol in (texts, answers, codes)),
    )
    items, _ = encode_choices(CHOICES, [0, 1, 2], str, tokenizer, Encoding())
    reply_items, _ = encode_replies(REPLIES, [0, 1, 2], str, tokenizer, Encoding())
    with torch.no_grad():
        records = choice.score(model, collate_choices(items, tokenizer.pad_token_id))
        batch = collate_replies(reply_items, tokenizer.pad_token_id)
        found: dict[Source, Scored] = {"choices": ({}, records)}
        found["reply texts"] = ({}, replies.score(model, batch))
        found["answers"] = ({}, asked.score(model, batch))
        found["codes"] = ({}, stored.score(model, batch))
    for source, evaluator in (("choices", choice), ("reply texts", replies), ("answers", asked), ("codes", stored)):
        found[source][0].update(evaluator.compute())  # type: ignore[index]
    taught = TaskEvaluation(
        {"one": TASKS["piqa"].protocol()},
        tokenizer,
        divergence=lambda network, batch: [{"kl": 2.0 * n, "kl_positions": 4} for n in range(3)],
    )
    with torch.no_grad():
        taught_records = taught.score(model, collate_choices(items, tokenizer.pad_token_id))
    found["teacher"] = (taught.compute(), taught_records)
    rows = text_rows(tokenizer, ["The cat sat on the mat.", "It then ran away."], 32)
    outputs = torch.tensor([[2.0, 0.5], [0.3, 0.4], [1.0, 3.0]])
    for task, width in (("rte", 2), ("stsb", 1)):
        labels = LabelEvaluator(TASKS[task].protocol())
        items_of = [LabelledItem((5, 6), (), label, n) for n, label in enumerate((0.0, 0.0, 1.0))]
        network = SimpleNamespace(logits=outputs[:, :width])
        records = labels.score(lambda network=network, **inputs: network, collate_labels(items_of, 0))
        found["classes" if width == 2 else "numbers"] = (labels.compute(), records)
    documents = document_scores(model, rows, 64)
    found["general text"] = (general_metrics(documents), documents)
    return found


def test_every_metric_that_an_evaluator_returns_has_an_entry(evaluated: dict[Source, Scored]) -> None:
    measured = {"gold replies"} | evaluated.keys()
    assert {source for metric in METRICS.values() for source in metric.sources} == measured
    for source, (values, _) in evaluated.items():
        sources = {source} if source not in ("answers", "reply texts", "codes") else {source, "gold replies"}
        sources |= {"codes": {"answers"}, "teacher": {"choices"}}.get(source, set())
        listed = {name: metric for name, metric in METRICS.items() if sources & {*metric.sources}}
        errors = {f"{name}_stderr" for name, metric in listed.items() if metric.has_stderr}
        assert values.keys() - {COUNT} == listed.keys() | errors


def test_means_over_items_are_those_of_the_lines(evaluated: dict[Source, Scored]) -> None:
    seen = set()
    for values, items in evaluated.values():
        for name, metric in METRICS.items():
            scores = [None if metric.item is None else metric.item(item) for item in items]
            if name in values and scores and None not in scores:
                assert values[name] == pytest.approx(statistics.fmean(scores), rel=1e-5), name  # type: ignore[type-var]
                assert metric.is_mean
                seen.add(name)
    assert seen == {name for name, metric in METRICS.items() if metric.item is not None}


def test_metrics_of_texts_are_means_over_items_where_the_table_says_so() -> None:
    replies = ["the cat sat and sat and sat", "the dog and the dog ran away from it, and the cat sat"]
    references = ["the cat ran away", "the dog ran away with it all, and the cat sat"]
    whole = reply_metrics(replies, references)
    each = [reply_metrics([reply], [reference]) for reply, reference in zip(replies, references, strict=True)]
    for name in (name for name in METRICS if name in whole):
        mean = statistics.fmean(values[name] for values in each)
        assert (whole[name] == pytest.approx(mean)) == METRICS[name].is_mean, name


def test_accuracies_are_shares_of_right_items() -> None:
    assert ACCURACIES == ("acc", "acc_norm", "acc_token")
    assert len(ACCURACIES) == len(ChoiceScores._fields)  # and in their order: the sum, per byte, per token
    for name in ACCURACIES:
        right = METRICS[name].item
        assert right is not None
        assert [right({"label": 1, f"prediction_{name}": n}) for n in (0, 1)] == [0, 1]
        assert right({"label": 1, "prediction_other": 1}) is None


def test_directions() -> None:
    lower = {name for name, metric in METRICS.items() if metric.direction == "minimize"}
    assert lower == {"nll", "perplexity", "unparsed_rate", "general_perplexity", "general_nll", "mse", "kl"}
    assert {name for name, metric in METRICS.items() if metric.direction is None} == {"reply_length"}
    assert better("nll", 1.0, 2.0)
    assert better("report/piqa/acc", 0.6, 0.5)
    assert not better("acc", 0.5, 0.5)


def test_every_task_is_reported_and_selected_by_a_metric_of_the_table() -> None:
    protocols = [protocol for task in TASKS.values() for protocol in task.protocols]
    assert all(METRICS[protocol.metric].direction for protocol in protocols)
    assert all(METRICS[protocol.selection_metric].selects for protocol in protocols)
    assert {*METRICS[COMMON].sources} == {"choices", "gold replies", "classes"}  # all that can be mixed have it
    unselective = {"reply_length", "general_perplexity", "general_nll"}
    assert {name for name, metric in METRICS.items() if not metric.selects} == unselective


# ----------------------------------------------------------------------------------------------- nobody else lists them


def lists_of_names(tree: ast.AST) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield line and names of each literal that has several metrics in it: a tuple, list or set, or the keys of a dict.

    A dict whose values are computed holds the values of metrics, and is no list of their names.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            parts = node.elts
        elif isinstance(node, ast.Dict) and all(isinstance(value, ast.Constant) for value in node.values):
            parts = [key for key in node.keys if key is not None]
        else:
            continue
        names = [part.value for part in parts if isinstance(part, ast.Constant) and part.value in METRICS]
        if len(names) > 1:
            yield node.lineno, names


def test_nobody_else_lists_metrics() -> None:
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "metric_table.py"]
    found = [
        f"{file.relative_to(PACKAGE)}:{line} lists {', '.join(names)}: read records/metric_table.py instead"
        for file in files
        for line, names in lists_of_names(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize("text", ['X = ("acc", "nll")', '{"acc": 1, "nll": 2}', 'name in ["acc", "perplexity"]'])
def test_a_list_of_metrics_would_be_found(text: str) -> None:
    assert [line for line, _ in lists_of_names(ast.parse(text))] == [1]

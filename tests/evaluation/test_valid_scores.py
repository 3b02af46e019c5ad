"""A score that is not finite stops the run with the item's name; it never becomes an accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.collate import collate_choices, collate_replies
from smoa_lightning.data.encoding.items import IGNORED, ChoiceItem, ReplyItem, TokenRow
from smoa_lightning.data.tasks import get_task
from smoa_lightning.evaluation.tasks import TaskEvaluation
from smoa_lightning.training.callbacks.forgetting import document_scores

BAD = 40  # a token whose embedding is not finite


@pytest.fixture
def model() -> Any:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=64, **small)).eval()
    network.get_input_embeddings().weight.data[BAD] = float("nan")
    return network


def row(ids: Sequence[int], targets: int = 1) -> TokenRow:
    return TokenRow(tuple(ids), (IGNORED,) * (len(ids) - targets) + tuple(ids[-targets:]))


@pytest.mark.parametrize("protocol", ["likelihood", "generation"])
def test_the_first_item_without_a_valid_score_is_named(
    protocol: Any, model: Any, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    task = get_task("piqa")
    evaluation = TaskEvaluation({"piqa": task.protocol(protocol)}, byte_tokenizer, max_new_tokens=2)
    if protocol == "likelihood":
        items = [
            ChoiceItem((row([5, 6, 7]), row([5, bad, 8])), (1, 1), 0, number) for number, bad in ((3, 6), (8, BAD))
        ]
        batch, place = collate_choices(items, 0), "row 9: the log-likelihood of choice 2 is nan"
    else:
        replies = [ReplyItem(row([5, bad, 7]), (5, bad), number, "x", "1") for number, bad in ((3, 6), (8, BAD))]
        batch, place = collate_replies(replies, 0), "row 9: the log-likelihood of the gold reply is nan"
    with torch.no_grad(), pytest.raises(UserError, match=f"piqa, {place}, so the item has no valid score"):
        evaluation.score(model, batch)
    if protocol == "likelihood":
        assert evaluation.evaluators[0].records == []  # type: ignore[union-attr]


def test_an_infinite_score_is_refused_too(model: Any, byte_tokenizer: PreTrainedTokenizerFast) -> None:
    model.lm_head.register_forward_hook(lambda head, given, out: out.index_fill(-1, torch.tensor(7), float("-inf")))
    evaluation = TaskEvaluation({"piqa": get_task("piqa").protocol(None)}, byte_tokenizer)
    batch = collate_choices([ChoiceItem((row([5, 6, 7]), row([5, 6, 8])), (1, 1), 1, 0)], 0)
    with torch.no_grad(), pytest.raises(UserError, match=r"piqa, row 1: the log-likelihood of choice 1 is -inf"):
        evaluation.score(model, batch)


def test_a_document_of_general_text_is_named(model: Any) -> None:
    with pytest.raises(UserError, match=r"forgetting\.text, document 2: the log-likelihood is nan"):
        document_scores(model, [row([5, 6, 7], 2), row([5, BAD, 7], 2)], 64)

"""Replies: likelihood against a dense computation, written text against transformers' own generate, metrics of both."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.collate import collate_replies
from smoa_lightning.data.encoding.encode_examples import Encoding, encode_replies
from smoa_lightning.data.tasks import Generation, Likelihood, ReplyExample, get_task, protocol_of
from smoa_lightning.embedded import backbone_folder
from smoa_lightning.evaluation.choice import ChoiceEvaluator
from smoa_lightning.evaluation.reply import ReplyEvaluator
from smoa_lightning.evaluation.tasks import TaskEvaluation

EXAMPLES = [
    ReplyExample("", ("Question: How can you mop up a puddle?\nAnswer:",), " Use a sponge.", answer="sponge"),
    ReplyExample("", ("To crack a nut, you need something that",), " is hard.", answer="hard"),
    ReplyExample("", ("What burns well? A log,",), " a newspaper.", answer="newspaper"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(backbone_folder(), local_files_only=True)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(backbone_folder(), local_files_only=True, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def batch(tokenizer):
    items, _ = encode_replies(EXAMPLES, [4, 5, 6], str, tokenizer, Encoding())
    return collate_replies(items, tokenizer.pad_token_id)


def protocol(**changes) -> Generation:
    settings = {"metric": "acc", "max_new_tokens": 12, "stop": (".",)} | changes
    return Generation(lambda row: EXAMPLES[row["n"]], **settings)


def test_likelihood_of_gold_replies_is_that_of_a_dense_computation(model, tokenizer, batch):
    evaluator = ReplyEvaluator(protocol(), tokenizer)
    records = evaluator.score(model, batch, write=False)
    total, number = 0.0, 0
    for record, example in zip(records, EXAMPLES, strict=True):
        prompt = tokenizer(example.prompt)["input_ids"]
        whole = tokenizer(example.prompt + example.response, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logs = model.double()(whole).logits[0].log_softmax(-1)
        nll = -sum(logs[i - 1, whole[0, i]].item() for i in range(len(prompt), whole.shape[1]))
        assert record["nll"] == pytest.approx(nll, abs=1e-4)
        assert record["tokens"] == whole.shape[1] - len(prompt)
        assert "reply" not in record
        total, number = total + nll, number + record["tokens"]
    model.float()
    assert evaluator.compute()["perplexity"] == pytest.approx(math.exp(total / number), rel=1e-4)


def test_replies_are_those_of_generate_one_by_one_up_to_the_stop(model, tokenizer, batch):
    records = ReplyEvaluator(protocol(), tokenizer).score(model, batch)
    for record, example in zip(records, EXAMPLES, strict=True):
        prompt = tokenizer(example.prompt, return_tensors="pt")
        with torch.no_grad():
            made = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        text = tokenizer.decode(made, skip_special_tokens=True).strip()
        assert "." in text  # else the stop is not tried
        assert record["reply"] == text.partition(".")[0].rstrip()


def test_replies_by_published_rules_are_those_of_the_beam_search_of_generate(model, tokenizer, batch):
    """The published code calls generate with 4 beams and 32 tokens, and cuts nothing at a line break or full stop."""
    rules = protocol_of(get_task("piqa"), None, "llm_adapters")
    records = ReplyEvaluator(rules, tokenizer).score(model, batch)
    greedy = ReplyEvaluator(replace(rules, num_beams=1), tokenizer).replies(model, batch["prompt"])
    for record, example in zip(records, EXAMPLES, strict=True):
        prompt = tokenizer(example.prompt, return_tensors="pt")
        with torch.no_grad():
            made = model.generate(**prompt, max_new_tokens=32, num_beams=4, do_sample=False)
        text = tokenizer.decode(made[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        assert record["reply"] == text.strip()
    assert [record["reply"] for record in records] != greedy


@pytest.mark.parametrize(
    ("text", "stop", "answers", "reply"),
    [
        ("\n\n yes\nno", "\n", True, "\n\n yes"),  # line breaks before an answer are passed over
        ("\n\n yes\nno", "\n", False, ""),  # a reply that is compared as a text ends with its line
        (" yes\nno", "\n", False, " yes"),
        ("\nQuestion: what?\nAnswer: 7", "\nQuestion:", True, ""),  # nothing was answered
        (" 3\n4\nQuestion: 5", "\nQuestion:", True, " 3\n4"),
        (" yes", "\n", True, " yes"),
    ],
)
def test_where_a_reply_ends(tokenizer, text, stop, answers, reply):
    evaluator = ReplyEvaluator(protocol(stop=(stop,), answer=str if answers else None), tokenizer)
    assert text[: evaluator._end(text)] == reply


def test_answers_are_counted(model, tokenizer, batch):
    found = iter([None, "hard", "log"])
    evaluator = ReplyEvaluator(protocol(answer=lambda text: next(found)), tokenizer)
    records = evaluator.score(model, batch)
    assert [record["correct"] for record in records] == [False, True, False]
    values = evaluator.compute()
    assert values["num_items"] == 3
    assert values["acc"] == pytest.approx(1 / 3)
    assert values["unparsed_rate"] == pytest.approx(1 / 3)
    assert values["acc_stderr"] == pytest.approx(math.sqrt(1 / 3 * 2 / 3 / 2))
    assert evaluator.records == []


def test_texts_are_compared_where_no_answer_is_looked_for(model, tokenizer, batch):
    evaluator = ReplyEvaluator(protocol(), tokenizer)
    evaluator.score(model, batch)
    assert {"bleu", "chrf", "rouge_l", "token_f1", "distinct_1", "perplexity"} <= evaluator.compute().keys()


def test_an_encoder_that_is_not_there_is_refused_before_scoring(tokenizer, tmp_path):
    with pytest.raises(UserError):
        ReplyEvaluator(protocol(), tokenizer, bert_score=str(tmp_path))


@pytest.mark.parametrize("kind", ["t5", "gpt2", "mamba"])
def test_a_model_that_bert_score_cannot_use_is_refused_before_scoring(kind, tokenizer, tmp_path):
    sizes = {
        "t5": {"d_model": 8, "d_ff": 8, "num_layers": 1, "num_heads": 1, "d_kv": 8},
        "gpt2": {"n_embd": 8, "n_layer": 1, "n_head": 1},
        "mamba": {"hidden_size": 8, "num_hidden_layers": 1},
    }
    settings = transformers.CONFIG_MAPPING[kind](vocab_size=len(tokenizer), **sizes[kind])
    transformers.AutoModel.from_config(settings).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^bert_score: the encoder '.*' cannot be used, so name an encoder .*Error: "):
        ReplyEvaluator(protocol(), tokenizer, bert_score=str(tmp_path))


def test_selection_writes_replies_only_where_its_metric_needs_them(tokenizer):
    own = {"a": protocol(selection_metric="nll"), "b": protocol(selection_metric="acc"), "c": Likelihood(dict)}  # type: ignore[arg-type]
    assert TaskEvaluation(own, tokenizer, selecting=True).write == [False, True, True]
    assert TaskEvaluation(own, tokenizer).write == [True, True, True]


def test_several_tasks_have_their_own_metrics_and_means(model, tokenizer, batch):
    found = iter(["sponge", "hard", "log", "x", "hard", "x"])
    own = protocol(answer=lambda text: next(found))
    evaluation = TaskEvaluation({"one": own, "two": own}, tokenizer)
    first, second = evaluation.score(model, batch, 0), evaluation.score(model, batch, 1)
    assert {record["task"] for record in first} == {"one"}
    assert {record["task"] for record in second} == {"two"}
    values = evaluation.compute()
    assert values["one/acc"] == pytest.approx(2 / 3)
    assert values["two/acc"] == pytest.approx(1 / 3)
    assert values["acc"] == pytest.approx(1 / 2)
    assert values["num_items"] == 6
    own_errors = [values["one/acc_stderr"], values["two/acc_stderr"]]
    assert values["acc_stderr"] == pytest.approx(math.hypot(*own_errors) / 2)


def test_choices_and_replies_side_by_side(tokenizer):
    evaluation = TaskEvaluation({"one": Likelihood(dict), "two": protocol()}, tokenizer)  # type: ignore[arg-type]
    assert [type(evaluator) for evaluator in evaluation.evaluators] == [ChoiceEvaluator, ReplyEvaluator]

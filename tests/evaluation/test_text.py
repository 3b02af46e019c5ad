"""Metrics of texts against torchmetrics, scipy, one's own resampling and numbers worked out by hand."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import scipy.stats
import torch
from sacrebleu.metrics import BLEU, CHRF
from torchmetrics.text import CHRFScore, ROUGEScore, SacreBLEUScore, SQuAD
from transformers import BertModel, PreTrainedTokenizerFast

from smoa_lightning.common.errors import UserError
from smoa_lightning.evaluation.text import (
    answer_metrics,
    bert_score_metrics,
    distinct,
    likelihood_metrics,
    reply_metrics,
    rouge_l,
    signatures,
    token_f1,
)

WORDS = [
    "the",
    "a",
    "cat",
    "Dog",
    "sat",
    "on",
    "mat,",
    "with",
    "some",
    "food.",
    "and",
    "then",
    "it's",
    "ran",
    "away",
    "!",
]


def sentences(seed: int, count: int) -> list[str]:
    source = random.Random(seed)
    return [" ".join(source.choices(WORDS, k=source.randint(3, 14))) for _ in range(count)]


def noisy(texts: list[str]) -> list[str]:
    """Return the texts with about a third of their words replaced, so that four-grams match here and there."""
    source = random.Random(7)
    return [" ".join(w if source.random() < 0.7 else source.choice(WORDS) for w in text.split()) for text in texts]


REFERENCES = sentences(0, 120)
REPLIES = noisy(REFERENCES)


def test_corpus_scores_equal_torchmetrics() -> None:
    found = reply_metrics(REPLIES, REFERENCES)
    targets = [[text] for text in REFERENCES]
    bleu, chrf = SacreBLEUScore(tokenize="13a"), CHRFScore(n_word_order=0)
    assert found["bleu"] == pytest.approx(100 * float(bleu(REPLIES, targets)), abs=1e-3)
    assert found["chrf"] == pytest.approx(100 * float(chrf(REPLIES, targets)), abs=1e-3)
    assert 20 < found["bleu"] < 80
    rouge = ROUGEScore(rouge_keys="rougeL")(REPLIES, REFERENCES)
    assert found["rouge_l"] == pytest.approx(float(rouge["rougeL_fmeasure"]), abs=1e-6)


def test_token_f1_equals_squad() -> None:
    nasty = ["", "the", "The cat's hat!", "naïve café", "a-b a", *REPLIES]
    wanted = ["", "cat", "a cats hat", "cafe naïve", "", *REFERENCES]
    for reply, reference in zip(nasty, wanted, strict=True):
        squad = SQuAD()(
            {"prediction_text": reply, "id": "1"},
            {"answers": {"answer_start": [0], "text": [reference]}, "id": "1"},
        )
        assert token_f1(reply, reference) == pytest.approx(float(squad["f1"]) / 100, abs=1e-6)


def test_distinct_and_length_by_hand() -> None:
    found = reply_metrics(["I am here.", "I am not", ""], ["x", "y", "z"])
    # i am here . | i am not: 5 of 7 unigrams; (i am) (am here) (here .) (am not) of 5 bigrams
    assert found["distinct_1"] == pytest.approx(5 / 7)
    assert found["distinct_2"] == pytest.approx(4 / 5)
    assert found["reply_length"] == pytest.approx(2)
    assert found["reply_length_stderr"] == pytest.approx(scipy.stats.sem([3, 3, 0]))
    assert distinct([["a"], ["b"]], 2) == 0


def test_standard_errors_of_means_are_scipys() -> None:
    found = reply_metrics(REPLIES, REFERENCES)
    pairs = list(zip(REPLIES, REFERENCES, strict=True))
    for name, function in (("rouge_l", rouge_l), ("token_f1", token_f1)):
        assert found[f"{name}_stderr"] == pytest.approx(scipy.stats.sem([function(*pair) for pair in pairs]))


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_standard_errors_of_corpus_scores_equal_a_jackknife(name: str) -> None:
    """Leave one item out: an estimate of the same quantity that needs no random numbers."""
    found = reply_metrics(REPLIES, REFERENCES)
    metric = {"bleu": BLEU(tokenize="13a"), "chrf": CHRF()}[name]
    count, left = len(REPLIES), []
    for out in range(count):
        rest = [i for i in range(count) if i != out]
        left.append(metric.corpus_score([REPLIES[i] for i in rest], [[REFERENCES[i] for i in rest]]).score)
    jackknife = math.sqrt((count - 1) * numpy.var(left))
    assert found[f"{name}_stderr"] == pytest.approx(jackknife, rel=0.2)


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_standard_errors_fit_sacrebleus_interval(name: str) -> None:
    found = reply_metrics(REPLIES, REFERENCES)
    metric = {"bleu": BLEU(tokenize="13a"), "chrf": CHRF()}[name]
    score = metric.corpus_score(REPLIES, [REFERENCES], n_bootstrap=500)
    assert found[name] == score.score
    assert found[f"{name}_stderr"] == pytest.approx(score._ci / scipy.stats.norm.ppf(0.975), rel=0.1)


def test_scores_are_reproducible_and_signed() -> None:
    random.seed(1)
    numpy.random.seed(1)
    first = reply_metrics(REPLIES[:9], REFERENCES[:9])
    assert first == reply_metrics(REPLIES[:9], REFERENCES[:9])
    found = signatures()
    assert "tok:13a|smooth:exp" in found["bleu"]
    assert "nc:6|nw:0" in found["chrf"]
    assert all("bs:500|seed:12345" in signature for signature in found.values())


@pytest.mark.parametrize("replies", [["", "", ""], ["", "a b c d e f", ""], ["   ", "?", "ß"]])
def test_empty_replies_break_nothing(replies: list[str]) -> None:
    found = reply_metrics(replies, ["one two three four five", "a b c d e f", "."])
    assert all(math.isfinite(value) for value in found.values())


def test_all_empty_scores_nothing() -> None:
    found = reply_metrics(["", ""], ["one two", "three"])
    assert {name for name, value in found.items() if value} == set()


def test_one_item_has_no_spread() -> None:
    found = reply_metrics(["the cat sat on the mat"], ["the cat sat on the mat"])
    assert found["bleu"] == pytest.approx(100)
    assert found["rouge_l"] == found["token_f1"] == 1
    assert not [name for name in found if name.endswith("_stderr")]


def test_different_numbers_are_refused() -> None:
    for function in (reply_metrics, answer_metrics, likelihood_metrics):
        with pytest.raises(ValueError, match="2 items and 1 references"):
            function(["a", "b"], ["a"])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="at least one"):
            function([], [])


def test_answers_by_hand() -> None:
    found = answer_metrics(["a", None, "b", "c", "42"], ["a", "b", "b", "b", "42"])
    assert found["acc"] == pytest.approx(3 / 5)
    assert found["acc_stderr"] == pytest.approx(math.sqrt(0.6 * 0.4 / 4))
    assert found["unparsed_rate"] == pytest.approx(1 / 5)
    assert found["unparsed_rate_stderr"] == pytest.approx(math.sqrt(0.2 * 0.8 / 4))
    assert answer_metrics([None], ["a"]) == {
        "acc": 0.0, "unparsed_rate": 1.0,
    }  # fmt: skip


def likelihoods(generator: numpy.random.Generator, count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    tokens = generator.integers(1, 40, count)
    per_token = generator.normal(2.5 - 0.02 * tokens, 0.5)  # longer items are easier, as in real text
    return tokens * per_token, tokens


def test_perplexity_is_that_of_all_tokens() -> None:
    nll, tokens = likelihoods(numpy.random.default_rng(0), 200)
    found = likelihood_metrics(nll.tolist(), tokens.tolist())
    assert found["perplexity"] == pytest.approx(math.exp(nll.sum() / tokens.sum()))
    assert found["nll"] == pytest.approx((nll / tokens).mean())
    assert found["nll_stderr"] == pytest.approx(scipy.stats.sem(nll / tokens))


def test_delta_method_equals_the_bootstrap_and_the_truth() -> None:
    nll, tokens = likelihoods(numpy.random.default_rng(1), 300)
    found = likelihood_metrics(nll.tolist(), tokens.tolist())["perplexity_stderr"]
    resampled = scipy.stats.bootstrap(
        (nll, tokens),
        lambda a, t, axis: numpy.exp(a.sum(axis) / t.sum(axis)),
        paired=True,
        vectorized=True,
        n_resamples=2000,
        method="percentile",
        random_state=numpy.random.default_rng(2),
    )
    assert found == pytest.approx(resampled.standard_error, rel=0.08)
    # and the spread of the perplexity over fresh samples of the same size, the mean of the estimates against it
    pairs = [likelihoods(numpy.random.default_rng(seed), 300) for seed in range(10, 1010)]
    all_found = [likelihood_metrics(a.tolist(), t.tolist()) for a, t in pairs]
    truth = numpy.std([each["perplexity"] for each in all_found], ddof=1)
    assert numpy.mean([each["perplexity_stderr"] for each in all_found]) == pytest.approx(truth, rel=0.08)


def test_perplexity_of_one_item_and_of_a_broken_model() -> None:
    one = likelihood_metrics([math.log(4) * 3], [3])
    assert one == pytest.approx({"nll": math.log(4), "perplexity": 4})  # one item shows no spread
    assert likelihood_metrics([9000.0, 9500.0], [3, 3])["perplexity"] == math.inf


@pytest.mark.parametrize("layer", [None, 1])
def test_bert_score_equals_a_separate_computation(encoder: Path, layer: int | None) -> None:
    model = BertModel.from_pretrained(encoder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(encoder)

    def embeddings(text: str) -> torch.Tensor:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        inner = states[-1 if layer is None else layer][0, 1:-1]
        return inner / inner.norm(dim=-1, keepdim=True)

    replies = ["the cat sat", "dog some food it", "cat", ""]  # lengths in another order than the references'
    references = ["the", "the cat ran away and then it sat", "a cat", "the dog"]
    expected = []
    for reply, reference in zip(replies[:3], references[:3], strict=True):
        # at least 0: masked tokens take part with a similarity of 0, as in the paper's own code
        similar = (embeddings(reply) @ embeddings(reference).T).clamp(min=0)
        precision, recall = float(similar.amax(1).mean()), float(similar.amax(0).mean())
        expected.append(2 * precision * recall / (precision + recall))
    found = bert_score_metrics(replies, references, str(encoder), layer)
    assert found["bert_score"] == pytest.approx(sum(expected) / 4, abs=1e-5)
    assert found["bert_score_stderr"] == pytest.approx(scipy.stats.sem([*expected, 0]), abs=1e-5)
    assert bert_score_metrics(references, references, str(encoder))["bert_score"] == pytest.approx(1, abs=1e-5)


def test_bert_score_without_its_encoder(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a folder nor in the cache"):
        bert_score_metrics(["a"], ["a"], "someone/some-bert")
    with pytest.raises(UserError, match=r"the encoder .* cannot be read"):
        bert_score_metrics(["a"], ["a"], str(tmp_path))
    with pytest.raises(UserError, match=r"layer 5 .* has 2 layers"):
        bert_score_metrics(["a"], ["a"], str(encoder), num_layers=5)


def test_importing_it_is_light() -> None:
    heavy = "('lightning', 'transformers', 'peft', 'torch')"
    code = f"import sys, smoa_lightning.evaluation.text; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

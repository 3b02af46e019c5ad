"""Draws against the distribution that a full forward gives, and their independence of the batch."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM

from smoa_lightning.evaluation.decoding import continuations
from smoa_lightning.evaluation.sampling import Sampling, SeededDraws

PAD, EOS, WORDS = 0, 2, 7
PROMPT = [1, 4, 5]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=WORDS, pad_token_id=PAD, eos_token_id=EOS, initializer_range=0.4, **sizes)
    return LlamaForCausalLM(config).eval()


def nucleus(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """The definition of Holtzman et al. (2019): the smallest set of the likeliest tokens with at least this mass."""
    probabilities = (logits.double() / temperature).softmax(-1)
    kept, mass = torch.zeros_like(probabilities), 0.0
    for token in probabilities.argsort(descending=True).tolist():
        if mass >= top_p:
            break
        mass += float(probabilities[token])
        kept[token] = probabilities[token]
    return kept / kept.sum()


def expected_pairs(model: Any, temperature: float, top_p: float) -> dict[tuple[int, ...], float]:
    """The probability of each reply of up to two tokens, from full forwards."""

    def following(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return nucleus(model(input_ids=torch.tensor([ids])).logits[0, -1], temperature, top_p)

    first, found = following(PROMPT), {}
    found[()] = float(first[EOS])
    for token in (token for token in range(WORDS) if token != EOS):
        second = following([*PROMPT, token])
        found[(token,)] = float(first[token] * second[EOS])
        for other in (other for other in range(WORDS) if other != EOS):
            found[(token, other)] = float(first[token] * second[other])
    return found


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.5, 0.7)])
def test_replies_have_the_distribution_of_the_model(model: Any, temperature: float, top_p: float) -> None:
    """Chi-square over eight seeds with 500 rows each; the draws are fixed, so the test always has the same result."""
    expected = expected_pairs(model, temperature, top_p)
    assert sum(expected.values()) == pytest.approx(1)
    counts = dict.fromkeys(expected, 0)
    for seed in range(8):
        draws = SeededDraws(Sampling(temperature, top_p, seed), range(500))
        for reply in continuations(model, [PROMPT] * 500, PAD, EOS, max_new_tokens=2, draws=draws):
            counts[tuple(reply)] += 1
    assert all(counts[reply] == 0 for reply, share in expected.items() if share == 0)
    often = [reply for reply, share in expected.items() if share * 4000 >= 5]
    seldom = [reply for reply, share in expected.items() if 0 < share * 4000 < 5]
    observed = [counts[reply] for reply in often] + [sum(counts[reply] for reply in seldom)]
    wanted = [expected[reply] * 4000 for reply in often] + [sum(expected[reply] for reply in seldom) * 4000]
    if not seldom:
        observed, wanted = observed[:-1], wanted[:-1]
    assert len(wanted) > 3
    assert chisquare(observed, wanted).pvalue > 1e-3


def test_a_row_has_the_same_reply_alone_and_in_a_batch(model: Any) -> None:
    prompts = [[1, *[3 + (row + place) % 4 for place in range(row + 1)]] for row in range(8)]
    numbers, sampling = [10 + row for row in range(8)], Sampling(1.2, 0.95, seed=5)

    def replies(chosen: list[int]) -> list[list[int]]:
        draws = SeededDraws(sampling, [numbers[row] for row in chosen])
        return continuations(model, [prompts[row] for row in chosen], PAD, EOS, max_new_tokens=12, draws=draws)

    together = replies(list(range(8)))
    assert together == [replies([row])[0] for row in range(8)]
    assert together == [*replies([0, 1, 2]), *replies([3, 4, 5, 6, 7])]
    other = continuations(
        model, prompts, PAD, EOS, max_new_tokens=12, draws=SeededDraws(Sampling(1.2, 0.95, seed=6), numbers)
    )
    assert together != other
    assert len({tuple(reply) for reply in together}) > 4


def test_the_streams_of_rows_and_seeds_differ() -> None:
    logits = torch.zeros(1, 1000)
    pairs = itertools.product(range(10), range(10))
    drawn = {
        int(SeededDraws(Sampling(seed=seed), [row])(torch.zeros(1, 1), logits).argmax()): (seed, row)
        for seed, row in pairs
    }
    assert len(drawn) > 85  # of 100; the expected number of different ones is 95


def test_rounding_never_draws_a_token_without_probability() -> None:
    """The largest uniform number below 1, and tokens at both ends of the vocabulary that cannot be drawn."""
    logits = torch.tensor([[-torch.inf, 0.0, 3.0, 1.0, -torch.inf]])
    for uniform, token in ((1 - 2**-53, 3), (0.0, 1)):
        draws = SeededDraws(Sampling(), [0])
        draws._streams = [type("Stream", (), {"random": lambda self, value=uniform: value})()]  # type: ignore[list-item]
        assert int(draws(torch.zeros(1, 1), logits).argmax()) == token

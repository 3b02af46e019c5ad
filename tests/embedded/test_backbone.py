"""The shipped backbone: loads offline, is small, knows facts, has structure, and answers tasks near chance."""

from __future__ import annotations

import json
import math
import random
import socket

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from smoa_lightning.data.tasks import get_task
from smoa_lightning.embedded import backbone_folder, rows
from tools.embedded import corpus
from tools.embedded.wording import prompt_text, sentence
from tools.embedded.world import properties, things

# measured on the shipped weights, minus a margin for another CPU's rounding
KNOWN_FACTS = 0.95
RANK_RATIO = 0.90
# four standard errors of guessing at 180 rows are .15 for two choices and .13 for four
MOST_ABOVE_CHANCE = dict.fromkeys(
    ("boolq", "social_i_qa", "hellaswag", "winogrande", "arc_challenge", "openbookqa", "arc_easy"), 0.12
)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(backbone_folder(), local_files_only=True)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(backbone_folder(), local_files_only=True).eval()


def log_likelihoods(model, tokenizer, items: list[tuple[str, str]]) -> list[float]:
    """Return the summed log-likelihood of each continuation after its prompt."""
    order = sorted(range(len(items)), key=lambda i: len(items[i][0]) + len(items[i][1]))
    scores = [0.0] * len(items)
    for start in range(0, len(order), 128):
        chosen = order[start : start + 128]
        prompts = [tokenizer(items[i][0])["input_ids"] for i in chosen]
        parts = [tokenizer(items[i][1], add_special_tokens=False)["input_ids"] for i in chosen]
        longest = max(len(one) + len(two) for one, two in zip(prompts, parts, strict=True))
        ids = torch.full((len(chosen), longest), tokenizer.pad_token_id)
        for row, (one, two) in enumerate(zip(prompts, parts, strict=True)):
            ids[row, : len(one) + len(two)] = torch.tensor(one + two)
        with torch.no_grad():
            logs = (
                model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long())
                .logits.float()
                .log_softmax(-1)
            )
        for row, (one, two) in enumerate(zip(prompts, parts, strict=True)):
            places = torch.arange(len(one) - 1, len(one) + len(two) - 1)
            scores[chosen[row]] = logs[row, places, torch.tensor(two)].sum().item()
    return scores


def test_all_files_together_are_small_and_public():
    files = list(backbone_folder().iterdir())
    assert sum(path.stat().st_size for path in files) < 6_000_000
    assert {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "provenance.json",
    } <= {path.name for path in files}
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in files)


def test_shape(model, tokenizer):
    config = model.config
    assert config.model_type == "llama"
    assert config.tie_word_embeddings
    assert config.vocab_size == len(tokenizer)
    assert config.num_key_value_heads < config.num_attention_heads
    assert config.max_position_embeddings >= 256
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_special_tokens_are_distinct_and_agree(model, tokenizer):
    ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert len(set(ids)) == 3
    for config in (model.config, model.generation_config):
        assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == ids


def test_tokenizer_puts_bos_first_and_round_trips_any_text(tokenizer):
    for text in (
        "A sponge soaks up water.",
        "Question: To x,\nAnswer: Use y.",
        "  a  b\t\n\nÄ 漢字 🙂 12345",
        "don't , stop !",
        "",
    ):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.eos_token_id not in ids
        assert tokenizer.decode(ids[1:]) == text
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids[1:]


def test_prompt_and_response_tokenised_apart_equal_the_whole(tokenizer):
    for row in rows("piqa", "test")[:100]:
        prompt, response = prompt_text(row["goal"]), f" {row['sol1']}"
        apart = tokenizer(prompt)["input_ids"] + tokenizer(response, add_special_tokens=False)["input_ids"]
        assert apart == tokenizer(prompt + response)["input_ids"]


def test_it_was_made_from_the_corpus_of_this_version():
    provenance = json.loads((backbone_folder() / "provenance.json").read_text())
    made = provenance["corpus"]
    assert made["sha256"] == corpus.checksum(corpus.documents(provenance["recipe"]["documents"]))
    assert made["settling_sha256"] == corpus.checksum(corpus.settling(provenance["recipe"]["settling_documents"]))


@pytest.mark.slow  # the file changes only when it is rebuilt
@pytest.mark.parametrize("against", ["another property", "its negation"])
def test_it_knows_the_facts(model, tokenizer, against):
    source = random.Random(0)
    items = []
    for thing in things():
        lacking = [name for name in properties() if thing.has(name) is False]
        for name in sorted(thing.true):
            true, negation = properties()[name].wordings[0]
            other = negation if against == "its negation" else properties()[source.choice(lacking)].wordings[0][0]
            items += [(sentence(thing.phrase), f" {true}."), (sentence(thing.phrase), f" {other}.")]
    scores = log_likelihoods(model, tokenizer, items)
    hits = [scores[i] > scores[i + 1] for i in range(0, len(scores), 2)]
    assert len(hits) > 600
    assert sum(hits) / len(hits) > KNOWN_FACTS


def near_chance(model, tokenizer, name: str, chosen: list[dict]) -> tuple[float, float]:
    """Return the accuracy by summed log-likelihood and the accuracy of guessing."""
    task = get_task(name)
    examples = [task.likelihood.example(task.check(row)) for row in chosen]
    scores = iter(log_likelihoods(model, tokenizer, [pair for example in examples for pair in example.pairs]))
    hits = 0
    for example in examples:
        own = [next(scores) for _ in example.pairs]
        hits += own.index(max(own)) == example.label
    return hits / len(chosen), sum(1 / len(example.pairs) for example in examples) / len(chosen)


@pytest.mark.slow  # the file changes only when it is rebuilt
@pytest.mark.parametrize("split", ["validation", "test"])
def test_it_chooses_near_chance(model, tokenizer, split):
    found, _ = near_chance(model, tokenizer, "piqa", rows("piqa", split))
    assert 0.44 < found < 0.56


@pytest.mark.slow  # the file changes only when it is rebuilt
@pytest.mark.parametrize("name", sorted(MOST_ABOVE_CHANCE))
def test_it_chooses_near_chance_in_every_task(model, tokenizer, name):
    found, chance = near_chance(model, tokenizer, name, rows(name, "validation")[:180])
    assert abs(found - chance) < MOST_ABOVE_CHANCE[name]


def test_it_predicts_held_out_text_far_better_than_chance(model, tokenizer):
    texts = corpus.held_out_text()[:40]
    scores = log_likelihoods(model, tokenizer, [("", text) for text in texts])
    tokens = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    assert -sum(scores) / tokens < 0.35 * math.log(len(tokenizer))


def effective_rank(matrix: torch.Tensor) -> float:
    values = torch.linalg.svdvals(matrix.double())
    shares = values / values.sum()
    return math.exp(-(shares * shares.log()).sum().item())


def test_spectra_have_structure(model):
    torch.manual_seed(0)
    ratios = []
    for name, parameter in model.named_parameters():
        if name.split(".")[-2] in ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj"):
            ratios.append(effective_rank(parameter.detach()) / effective_rank(torch.randn(parameter.shape)))
    assert len(ratios) == 5 * model.config.num_hidden_layers
    assert max(ratios) < 1
    assert sum(ratios) / len(ratios) < RANK_RATIO


def test_loading_asks_no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("loading the embedded backbone asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert AutoModelForCausalLM.from_pretrained(backbone_folder()) is not None
    assert AutoTokenizer.from_pretrained(backbone_folder()) is not None

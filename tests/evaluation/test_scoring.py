"""Scores against a dense float64 computation; independent of batch size and padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peft
import pytest
import scipy.special
import scipy.stats
import torch
import transformers
from torchmetrics.classification import MulticlassAccuracy
from transformers import LlamaForCausalLM

from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.encoding.encode import IGNORED
from smoa_lightning.evaluation import choice as choice_module
from smoa_lightning.evaluation.choice import ChoiceEvaluator
from smoa_lightning.evaluation.scoring import (
    PIECE,
    choice_scores,
    log_probabilities,
    row_log_likelihoods,
    summed_cross_entropy,
    target_logits,
)
from smoa_lightning.records.metric_table import ACCURACIES, item_scores


def scores(folder: Path, rows: Path, tokenizer: object, batch_size: int, multiple: int) -> dict[int, list[float]]:
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    data = TaskDataModule(
        "piqa", "local", path=str(rows), eval_batch_size=batch_size, pad_multiple=multiple, selection_rows=8
    )
    data.tokenizer = tokenizer  # type: ignore[assignment]
    data.setup("test")
    found = {}
    for batch in data.test_dataloader():
        with torch.no_grad():
            likelihood, tokens = row_log_likelihoods(*target_logits(model, batch))
        items = choice_scores(likelihood, tokens, batch["num_bytes"], batch["num_choices"])
        for row, values in zip(batch["row"].tolist(), items.log_likelihood.tolist(), strict=True):
            found[row] = values
    return found


def test_scores_do_not_depend_on_batch_size_or_padding(
    tiny_backbone: Path, piqa_folder: Path, byte_tokenizer: object
) -> None:
    one = scores(tiny_backbone, piqa_folder, byte_tokenizer, 1, 1)
    for batch_size, multiple in ((7, 1), (24, 64)):
        other = scores(tiny_backbone, piqa_folder, byte_tokenizer, batch_size, multiple)
        assert one.keys() == other.keys()
        for row, values in one.items():
            assert other[row] == pytest.approx(values, abs=1e-4)  # sums of about 60 float32 terms of size 5


def test_scores_equal_a_dense_float64_computation(
    tiny_backbone: Path, piqa_folder: Path, byte_tokenizer: object
) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_backbone).double().eval()
    data = TaskDataModule("piqa", "local", path=str(piqa_folder), selection_rows=8)
    data.tokenizer = byte_tokenizer  # type: ignore[assignment]
    data.setup("test")
    found = scores(tiny_backbone, piqa_folder, byte_tokenizer, 24, 1)
    for row in range(5):
        for choice, (prompt, response) in enumerate(data.example("report", row).pairs):
            ids = torch.tensor([byte_tokenizer(prompt + response).input_ids])  # type: ignore[operator]
            start = len(byte_tokenizer(prompt).input_ids)  # type: ignore[operator]
            with torch.no_grad():
                logprobs = model(ids).logits.log_softmax(-1)
            total = sum(logprobs[0, t - 1, ids[0, t]].item() for t in range(start, ids.shape[1]))
            assert found[row][choice] == pytest.approx(total, abs=1e-4)


class WithoutLogitsToKeep(torch.nn.Module):
    """An architecture that projects every position."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
        return self.inner(input_ids=input_ids, attention_mask=attention_mask)


def test_only_targets_are_projected(tiny_backbone: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_backbone).eval()
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    ids = torch.randint(3, 200, (3, 12))
    labels = ids.clone()
    labels[:, :5] = IGNORED
    labels[0, 9:] = IGNORED
    logits, _ = target_logits(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    assert seen == [(1, 4 + 7 + 7, model.config.vocab_size)]
    whole = model(ids).logits[:, :-1][labels[:, 1:] != IGNORED]
    assert len(seen) == 2
    assert seen[1][1] == 12  # the hook is gone
    torch.testing.assert_close(logits, whole)


def test_scaling_and_capping_of_logits_still_happen() -> None:
    """Gemma 2 caps its logits, Granite scales them."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0}
    ids = torch.randint(1, 40, (2, 7))
    for config in (
        transformers.Gemma2Config(**sizes, **heads, final_logit_softcapping=0.5),
        transformers.GraniteConfig(**sizes, **heads, logits_scaling=7.0),
    ):
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
        with torch.no_grad():
            torch.testing.assert_close(target_logits(model, batch)[0], model(ids).logits[:, :-1].reshape(-1, 40))


def test_architectures_without_an_output_embedding_have_the_same_scores(tiny_backbone: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_backbone).eval()
    ids = torch.randint(3, 200, (3, 12))
    labels = ids.clone()
    labels[:, :5] = IGNORED
    labels[0, 9:] = IGNORED
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    with torch.no_grad():
        one = row_log_likelihoods(*target_logits(model, batch))
        two = row_log_likelihoods(*target_logits(WithoutLogitsToKeep(model), batch))
    torch.testing.assert_close(one, two)
    assert one[1].tolist() == [4, 7, 7]


def test_virtual_tokens_do_not_shift_the_targets(tiny_backbone: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_backbone)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    adapted = peft.get_peft_model(model, config).eval()
    ids = torch.randint(3, 200, (2, 10))
    labels = ids.clone()
    labels[:, :6] = IGNORED
    with torch.no_grad():
        found, _ = row_log_likelihoods(
            *target_logits(adapted, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
        )
        virtual = adapted.get_prompt(2)
        embedded = torch.cat([virtual, model.get_input_embeddings()(ids)], dim=1)
        logprobs = model(inputs_embeds=embedded).logits.log_softmax(-1)
    for row in range(2):
        expected = sum(float(logprobs[row, 3 + t - 1, ids[row, t]]) for t in range(6, 10))
        assert float(found[row]) == pytest.approx(expected, abs=1e-4)


def test_summed_cross_entropy_counts_only_targets() -> None:
    logits, labels = torch.randn(2, 5, 7), torch.randint(0, 7, (2, 5))
    labels[0, :3] = IGNORED
    total, count = summed_cross_entropy(logits[labels != IGNORED], labels)
    by_hand = -sum(
        logits[i, j].log_softmax(-1)[labels[i, j]] for i in range(2) for j in range(5) if labels[i, j] != IGNORED
    )
    assert count == 7
    torch.testing.assert_close(total, by_hand)


def test_log_probabilities_in_pieces_equal_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(7, 11, generator=torch.Generator().manual_seed(0)) * 20
    places, tokens = torch.tensor([6, 0, 0, 3]), torch.tensor([1, 10, 2, 2])
    expected = scipy.special.log_softmax(logits.double().numpy(), axis=-1)[places, tokens]
    for piece in (1, 25, 2**18):  # one row, two rows and a rest, all rows
        monkeypatch.setitem(PIECE, "cpu", piece)
        found = log_probabilities(logits, places, tokens)
        torch.testing.assert_close(found, torch.tensor(expected).float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalisers_are_those_of_torch_and_keep_the_logits(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = (torch.randn(7, 1000, generator=torch.Generator().manual_seed(0)) * 20).to(dtype)
    logits[0, :900] = float("-inf")  # tokens that a model excludes
    logits[1, 5], logits[2, 5], logits[3] = float("nan"), float("inf"), float("-inf")
    before, every = logits.clone(), torch.arange(7)
    monkeypatch.setitem(PIECE, "cpu", 3000)  # pieces of three rows and a rest
    found = log_probabilities(logits, every, torch.full((7,), 999))
    expected = logits[:, 999].float() - logits.float().logsumexp(dim=-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert found.isfinite().tolist() == [True, False, False, False, True, True, True]
    torch.testing.assert_close(logits, before, rtol=0, atol=0, equal_nan=True)


def test_metrics_of_choices_equal_those_of_torchmetrics_and_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ragged choices in three batches; ``expected_acc`` against torch's softmax in float64."""
    generator = torch.Generator().manual_seed(0)
    num_choices = torch.randint(2, 6, (50,), generator=generator)
    rows = int(num_choices.sum())
    likelihood = -torch.rand(rows, generator=generator) * 5
    tokens, num_bytes = (torch.randint(1, high, (rows,), generator=generator) for high in (9, 90))
    label = torch.tensor([int(torch.randint(0, int(n), (), generator=generator)) for n in num_choices])
    first = torch.cumsum(num_choices, 0) - num_choices
    monkeypatch.setattr(
        choice_module, "choice_log_likelihoods", lambda network, batch: (batch["given"], batch["tokens"])
    )
    ours, records = ChoiceEvaluator(), []
    for part in (slice(0, 20), slice(20, 40), slice(40, 50)):
        own = slice(int(first[part][0]), int(first[part][-1] + num_choices[part][-1]))
        batch = {"given": likelihood[own], "tokens": tokens[own], "num_bytes": num_bytes[own]}
        batch |= {"num_choices": num_choices[part], "label": label[part], "row": torch.arange(50)[part]}
        records += ours.score(None, batch)
    found = ours.compute()
    items = choice_scores(likelihood, tokens, num_bytes, num_choices)
    for name, field in zip(ACCURACIES, items, strict=True):
        reference = MulticlassAccuracy(num_classes=5, average="micro")
        assert found[name] == pytest.approx(float(reference(field, label)))
        assert torch.isinf(field).sum() == sum(5 - int(n) for n in num_choices)
    expected = [-(likelihood / tokens)[first[item] + label[item]].item() for item in range(50)]
    shares = items.log_likelihood.double().softmax(dim=1).gather(1, label[:, None])[:, 0].numpy()
    assert item_scores(records, "expected_acc") == pytest.approx(shares, rel=1e-12)
    for name, values in (("nll", expected), ("expected_acc", shares)):
        assert found[name] == pytest.approx(np.mean(values), rel=1e-6)
        assert found[f"{name}_stderr"] == pytest.approx(float(scipy.stats.sem(values)), rel=1e-6)
    manual = [likelihood[: num_choices[0]] / num_bytes[: num_choices[0]]]
    assert records[0]["prediction_acc_norm"] == int(manual[0].argmax())
    assert (found["num_items"], ours.records) == (50, [])

"""Shared prefixes: the trees, and scores against those of each row alone, in every architecture that shares."""

from __future__ import annotations

import random
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from smoa_lightning.adapters import SMoAConfig, attach
from smoa_lightning.data.batches.collate import collate_choices
from smoa_lightning.data.encoding.items import IGNORED, ChoiceItem, TokenRow
from smoa_lightning.evaluation import prefix_trees
from smoa_lightning.evaluation.prefix_trees import choice_log_likelihoods, lay_out, shares_prefixes
from smoa_lightning.evaluation.scoring import row_log_likelihoods, target_logits

from ..adapters.architectures import ARCHITECTURES, CAUSAL


def row(prompt: list[int], choice: list[int]) -> TokenRow:
    return TokenRow((*prompt, *choice), (*[IGNORED] * len(prompt), *choice))


def items() -> list[ChoiceItem]:
    """Shots that all share, prompts, choices that begin alike or are one another's beginning, contexts that differ."""
    source = random.Random(0)

    def some(count: int) -> list[int]:
        return source.choices(range(3, 40), k=count)

    shots, found = some(9), []
    for number in range(6):
        prompt, begin = shots + some(4 + number), some(3)
        choices = [begin + some(2), begin + some(5), begin, some(1), begin + some(2)]
        found.append([row(prompt, choice) for choice in choices])
    ending = some(4)
    found.append([row(some(5), ending), row(some(7), ending)])  # partial evaluation, as in WinoGrande
    found.append([row(some(30), some(1)) for _ in range(2)])
    return [ChoiceItem(tuple(rows), (1,) * len(rows), 0, number) for number, rows in enumerate(found)]


def alone(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Log-likelihood of each row from a forward of its own; in float64 from its logits on."""
    totals = []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        kept = ids[: int(mask.sum())]
        with torch.no_grad():
            predicted = model(input_ids=kept[None]).logits[0, :-1].double().log_softmax(-1)
        chosen = labels[1 : len(kept)] != IGNORED
        totals.append(predicted.gather(1, kept[1:, None])[:, 0][chosen].sum())
    return torch.stack(totals)


def test_the_families_are_those_that_are_tested_here() -> None:
    assert set(CAUSAL) == prefix_trees.FAMILIES


WITHOUT_SDPA = ("gemma2",)  # its attention caps its scores


@pytest.mark.parametrize(
    ("family", "kernel"),
    [(f, k) for f in CAUSAL for k in prefix_trees.KERNELS if not (k.startswith("sdpa") and f in WITHOUT_SDPA)],
)
def test_scores_are_those_of_each_row_alone(family: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_trees, "WIDTH", 48)  # several sequences of several trees
    model: Any = ARCHITECTURES[family](attn_implementation=kernel)  # type: ignore[call-arg]
    batch = collate_choices(items(), pad_id=0)
    seen: list[torch.Size] = []
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    with torch.no_grad():
        found, tokens = choice_log_likelihoods(model, batch)
        plain, plain_tokens = row_log_likelihoods(*target_logits(model, batch))
    assert seen[0].numel() < 0.5 * seen[1].numel()  # it did share
    assert tokens.tolist() == plain_tokens.tolist()
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.double(), alone(model, batch), rtol=1e-5, atol=1e-5)


def test_bfloat16_is_as_near_to_float64_as_the_plain_path() -> None:
    model = ARCHITECTURES["llama"]().bfloat16()
    batch = collate_choices(items(), pad_id=0)
    with torch.no_grad():
        found, plain = choice_log_likelihoods(model, batch)[0], row_log_likelihoods(*target_logits(model, batch))[0]
    expected = alone(model.double(), batch)  # the same rounded weights
    ours, theirs = ((values - expected).abs().mean() for values in (found, plain))
    assert ours < 1.5 * theirs
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=0.1)


def test_the_tree_by_hand() -> None:
    """Rows 5 6 7 8 and 5 6 9 share two nodes; a third row is separate."""
    rows = [[5, 6, 7, 8], [30, 31, 32], [5, 6, 9, 10], [5, 6, 9]]
    labels = [[-100, -100, 7, 8], [-100, 31, 32], [-100, -100, 9, 10], [-100, -100, 9]]
    (layout,) = lay_out(rows, labels)
    assert layout.input_ids.tolist() == [[5, 6, 7, 9, 30, 31]]
    assert layout.position_ids.tolist() == [[0, 1, 2, 2, 0, 1]]
    ancestors = [[0], [0, 1], [0, 1, 2], [0, 1, 3], [4], [4, 5]]
    assert [line.nonzero()[:, 0].tolist() for line in layout.visible[0]] == ancestors
    column = layout.column[layout.place].tolist()
    found = sorted(zip(layout.row.tolist(), column, layout.token.tolist(), strict=True))
    assert found == [(0, 1, 7), (0, 2, 8), (1, 4, 31), (1, 5, 32), (2, 1, 9), (2, 3, 10), (3, 1, 9)]
    assert len(layout.column) == 5  # the node 6 predicts in three rows and is projected once


def test_a_common_bos_does_not_make_one_tree_of_a_batch() -> None:
    rows = [[1, *range(start, start + 20)] for start in range(10, 400, 20)]
    (layout,) = lay_out(rows, rows)
    assert layout.input_ids.shape[1] <= prefix_trees.WIDTH
    assert layout.visible.sum(-1).max() == 20


def test_long_shots_are_not_repeated_for_every_item() -> None:
    shots = list(range(100, 700))
    rows = [[*shots, item, choice] for item in range(16) for choice in range(4)]
    (layout,) = lay_out(rows, [[-100] * 601 + [line[-1]] for line in rows])
    assert layout.input_ids.numel() == 600 + 16
    assert len(layout.column) == 16
    assert len(layout.token) == 64


@pytest.mark.parametrize("nodes", [1, 60, 120])
def test_a_forward_has_at_most_so_many_nodes(nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trees of a batch are shared out among forwards; only a tree that is larger has a forward of its own."""
    monkeypatch.setattr(prefix_trees, "WIDTH", 24)
    model: Any = ARCHITECTURES["llama"]()  # type: ignore[call-arg]
    batch = collate_choices(items(), pad_id=0)
    shapes: list[torch.Size] = []
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: shapes.append(inputs[0].shape))
    with torch.no_grad():
        whole, _ = choice_log_likelihoods(model, batch)
        number = len(shapes)
        monkeypatch.setattr(prefix_trees, "NODES", nodes)
        found, tokens = choice_log_likelihoods(model, batch)
        plain, plain_tokens = row_log_likelihoods(*target_logits(model, batch))
    split = shapes[number:-1]
    assert number == 1 < len(split)
    assert all(shape.numel() <= nodes or (len(shape) == 2 and shape[0] == 1) for shape in split)
    assert tokens.tolist() == plain_tokens.tolist()
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)


ADAPTERS: dict[str, tuple[Any, bool]] = {
    "lora": (peft.LoraConfig(r=4), True),
    "smoa": (SMoAConfig(r=4), True),
    "prompt": (peft.PromptTuningConfig(num_virtual_tokens=3), False),
    "prefix": (peft.PrefixTuningConfig(num_virtual_tokens=3), False),
    "activated": (peft.LoraConfig(r=4, alora_invocation_tokens=[5, 6], task_type="CAUSAL_LM"), False),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters(name: str) -> None:
    config, shared = ADAPTERS[name]
    model: Any = attach(ARCHITECTURES["llama"](), config, seed=0).eval()
    for parameter in (p for p in model.parameters() if p.requires_grad):
        torch.nn.init.normal_(parameter, std=0.2)
    assert shares_prefixes(model, 40) is shared
    batch = collate_choices(items(), pad_id=0)
    with torch.no_grad():
        found, plain = choice_log_likelihoods(model, batch)[0], row_log_likelihoods(*target_logits(model, batch))[0]
        with model.disable_adapter():
            base = row_log_likelihoods(*target_logits(model, batch))[0]
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-4)
    if shared:
        assert (found - base).abs().max() > 1e-2


def test_an_adapter_that_mixes_positions_does_not_share() -> None:
    model: Any = attach(ARCHITECTURES["llama"](), peft.LoraConfig(r=4), seed=0)
    assert shares_prefixes(model, 40)
    model.peft_config["other"] = peft.AdaptionPromptConfig(adapter_layers=1, adapter_len=4, task_type="CAUSAL_LM")
    assert not shares_prefixes(model, 40)


def test_models_and_adapters_that_do_not_share_prefixes() -> None:
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "pad_token_id": 0}
    mamba = AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **sizes, state_size=4)).eval()
    bloom = AutoModelForCausalLM.from_config(AutoConfig.for_model("bloom", **sizes, n_head=2)).eval()
    assert not shares_prefixes(mamba, 8)
    assert not shares_prefixes(bloom, 8)  # its positions are in the mask
    gemma: Any = ARCHITECTURES["gemma2"]()
    assert shares_prefixes(gemma, 64)
    assert not shares_prefixes(gemma, 65)  # beyond the sliding window
    gemma.config._attn_implementation = "flash_attention_2"
    assert not shares_prefixes(gemma, 8)
    batch = collate_choices(items()[:2], pad_id=0)
    with torch.no_grad():
        torch.testing.assert_close(choice_log_likelihoods(bloom, batch)[0].double(), alone(bloom, batch))

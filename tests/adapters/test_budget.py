"""Budgets: counts by hand, the nearest size, and searches that find what trying everything finds."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import smoa_lightning.adapters.budget as budget_module
from smoa_lightning.adapters import AbbaConfig, KRAdapterConfig, SMoAConfig
from smoa_lightning.adapters.adalora import AdaLoraConfig
from smoa_lightning.adapters.bottleneck import BottleneckConfig
from smoa_lightning.adapters.budget import Budget, between, fit_budget, trainable_parameters
from smoa_lightning.adapters.mora import MoraConfig
from smoa_lightning.adapters.size_settings import OUT_OF_REACH, size_settings_of
from smoa_lightning.adapters.surm import SurmConfig
from smoa_lightning.adapters.target_shapes import target_shapes
from smoa_lightning.common.errors import UserError

WIDTH, INNER, KEYS, LAYERS = 16, 24, 8, 1
SHAPES = [(WIDTH, WIDTH), (KEYS, WIDTH), (KEYS, WIDTH), (INNER, WIDTH), (WIDTH, INNER)]  # q, k, v, up, down
SIDES = LAYERS * sum(map(sum, SHAPES))


@pytest.fixture(scope="module")
def skeleton() -> nn.Module:
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=40,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def fit(skeleton: nn.Module, config: Any, budget: Any) -> Any:
    return fit_budget(skeleton, config, Budget.parse(budget))


@pytest.mark.parametrize(
    ("text", "number"),
    [(300, 300), ("300k", 300_000), ("0.3M", 300_000), ("1_000", 1000), (1.2e5, 120_000), ("2b", 2e9)],
)
def test_budgets_are_read(text: Any, number: int) -> None:
    assert Budget.parse(text).parameters == number


@pytest.mark.parametrize("text", ["30o0k", "", "-5", "0", "k", True, "nan", "1e30", [300]])
def test_bad_budgets_are_one_sentence(text: Any) -> None:
    with pytest.raises(UserError, match=r"300k or 1.2M") as refused:
        Budget.parse(text)
    assert str(refused.value).startswith(f"model.budget is {text!r};")


def test_counts_are_those_of_the_formulas(skeleton: nn.Module) -> None:
    areas = LAYERS * sum(math.prod(shape) for shape in SHAPES)
    assert trainable_parameters(skeleton, peft.LoraConfig(r=3)) == 3 * SIDES
    assert trainable_parameters(skeleton, peft.HiraConfig(r=3)) == 3 * SIDES
    assert trainable_parameters(skeleton, SMoAConfig(r=6, num_subspaces=2)) == 6 * SIDES // 2
    assert trainable_parameters(skeleton, SMoAConfig(r=6, partition="spectral_energy")) == 6 * SIDES
    assert trainable_parameters(skeleton, peft.C3AConfig(block_size=8)) == areas // 8
    assert trainable_parameters(skeleton, peft.PromptTuningConfig(num_virtual_tokens=5)) == 5 * WIDTH
    assert trainable_parameters(skeleton, None) == sum(p.numel() for p in skeleton.parameters())
    assert not any(isinstance(m, peft.tuners.tuners_utils.BaseTunerLayer) for m in skeleton.modules())


def test_the_nearest_size_is_chosen(skeleton: nn.Module) -> None:
    found = fit(skeleton, peft.LoraConfig(r=8, lora_alpha=16), 5 * SIDES + 3)
    assert (found.config.r, found.config.lora_alpha) == (5, 10)
    assert found.changes == {"r": 5, "lora_alpha": 10}
    assert found.parameters == 5 * SIDES
    assert found.within
    for near, rank in ((5.4, 5), (5.6, 6)):
        found = fit(skeleton, peft.LoraConfig(r=8), int(near * SIDES))
        assert found.config.r == rank
        assert not found.within
        assert found.relative_error == pytest.approx(rank / near - 1, abs=1e-3)


def test_an_unreachable_budget_says_how_near_it_gets(skeleton: nn.Module) -> None:
    low = fit(skeleton, peft.LoraConfig(r=8, lora_alpha=8), SIDES // 2)
    assert low.line() == (
        f"budget {SIDES // 2:,}: not met within 1%; nearest is r 1 (was 8), lora_alpha 1 (was 8), {SIDES:,} trainable "
        "parameters (+100.0%)"
    )
    high = fit(skeleton, SMoAConfig(r=8, num_subspaces=2), "1M")
    assert high.config.r == KEYS  # the blocks of 4 x 8 hold a rank of 4 each
    assert high.relative_error < -0.9


def test_a_method_of_fixed_size_reports_its_parameters(skeleton: nn.Module) -> None:
    config = peft.IA3Config()
    found = fit(skeleton, config, 1000)
    assert found.config is config
    assert found.parameters == trainable_parameters(skeleton, config)
    assert "IA3 has a fixed size" in found.line()
    full = fit(skeleton, None, 1000)
    assert full.parameters == sum(p.numel() for p in skeleton.parameters())
    frozen = fit_budget(skeleton, None, Budget.parse(1000), frozen=True)
    assert (frozen.parameters, frozen.relative_error) == (0, -1.0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SMoAConfig(r=4, alpha=8.0, rank_pattern={"q_proj": 2}), r"SMoAConfig.rank_pattern are both set.*remove alpha"),
        (SMoAConfig(r=4, alpha_pattern={"q_proj": 8}), r"SMoAConfig.alpha_pattern are both set.*without a budget$"),
        (AbbaConfig(r=4, alpha_pattern={"q_proj": 8}), r"AbbaConfig.alpha_pattern are both set.*without a budget$"),
        (MoraConfig(r=4, alpha=8.0, rank_pattern={r"layers\.0\.mlp\..*": 2}), "MoraConfig.rank_pattern are both set"),
    ],
    ids=["rank", "alpha", "abba", "mora"],
)
def test_a_budget_does_not_change_the_scale_of_a_pattern(config: Any, message: str, skeleton: nn.Module) -> None:
    with pytest.raises(UserError, match=message):
        fit(skeleton, config, 3 * SIDES)


def test_patterns_without_alpha_keep_their_scale_and_rank(skeleton: nn.Module) -> None:
    found = fit(skeleton, SMoAConfig(r=4, rank_pattern={"q_proj": 2}), 3 * SIDES)
    assert found.changes.keys() == {"r"}
    assert found.config.rank_pattern == {"q_proj": 2}
    assert found.config.for_layer("model.layers.0.self_attn.q_proj").scaling == 1.0
    surm = fit(skeleton, SurmConfig(structure="ldr", alpha=2.0, rank_pattern={"q_proj": 2}), 2_560)
    assert not surm.fixed  # the scale of SURM does not depend on the rank
    lora = fit(skeleton, peft.LoraConfig(r=8, rank_pattern={"q_proj": 2}), 3 * SIDES)
    assert "(layers of rank_pattern keep their own values, so their scale changes)" in lora.line()


@pytest.mark.parametrize("config", [peft.LoraConfig(r=8), SMoAConfig(r=8, alpha=4.0, num_subspaces=2), MoraConfig(r=8)])
def test_a_rank_pattern_for_every_layer_is_a_fixed_size(config: Any, skeleton: nn.Module) -> None:
    config = dataclasses.replace(config, rank_pattern={"q_proj": 2, r".*\.[kv]_proj": 4, "up_proj": 4, "down_proj": 2})
    config.target_modules = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
    found = fit(skeleton, config, 3 * SIDES)
    assert found.config is config
    assert found.parameters == trainable_parameters(skeleton, config)
    assert "has a fixed size" in found.line()
    more = dataclasses.replace(config, target_modules=[*config.target_modules, "gate_proj"], alpha_pattern={})
    if not isinstance(config, SMoAConfig):
        assert not fit(skeleton, more, 3 * SIDES).fixed


def test_what_follows_the_size_keeps_the_scale_of_the_update(skeleton: nn.Module) -> None:
    found = fit(skeleton, peft.LoraConfig(r=16, lora_alpha=32, use_rslora=True), 4 * SIDES).config
    assert (found.r, found.lora_alpha) == (4, 16)  # 32 / sqrt(16) = 16 / sqrt(4)
    found = fit(skeleton, SMoAConfig(r=8, alpha=2.0, branch_ranks=[6, 2]), 2 * SIDES).config
    assert (found.r, found.alpha, found.branch_ranks) == (4, 1.0, [3, 1])
    found = fit(skeleton, AdaLoraConfig(init_r=12, target_r=8, lora_alpha=24), 6 * SIDES).config
    assert (found.init_r, found.target_r, found.lora_alpha) == (6, 4, 12)
    found = fit(skeleton, AdaLoraConfig(init_r=3, target_r=2, lora_alpha=3), 2 * SIDES).config
    assert (found.init_r, found.target_r) == (2, 1)  # below init_r, or there is nothing to cut
    found = fit(skeleton, peft.GraloraConfig(r=8, alpha=16, gralora_k=4), 4 * SIDES).config
    assert (found.r, found.alpha) == (4, 8)


MONOTONE = [
    peft.LoraConfig(r=8),
    peft.LoraConfig(r=8, use_dora=True, rank_pattern={"q_proj": 3}),
    peft.LoraConfig(r=8, init_lora_weights="pissa", target_modules="all-linear"),
    SMoAConfig(r=8, num_subspaces=3),
    SMoAConfig(r=8, rank_split="per_subspace"),
    SMoAConfig(r=5, branch_ranks=[4, 1]),
    peft.LoHaConfig(r=8),
    peft.GraloraConfig(r=8, gralora_k=4),
    AdaLoraConfig(init_r=4, target_r=2),
]


@pytest.mark.parametrize("config", MONOTONE, ids=lambda c: type(c).__name__)
def test_the_search_finds_what_trying_everything_finds(
    config: Any, skeleton: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    (knob,) = size_settings_of(config)
    known: dict[Any, int] = {}
    for value in knob.candidates(config, target_shapes(skeleton, config)):
        changed = dataclasses.replace(config, **{knob.field: value, **knob.dependents(config, value)})
        try:
            known[value] = trainable_parameters(skeleton, changed)
        except UserError:
            continue  # this rank is refused
    asked: list[Any] = []

    def look_up(_: nn.Module, trial: Any) -> int:
        asked.append(getattr(trial, knob.field))
        if asked[-1] not in known:
            raise UserError("refused")
        return known[asked[-1]]

    monkeypatch.setattr(budget_module, "trainable_parameters", look_up)
    counts = list(known.values())
    for target in {counts[0] // 2, counts[0], *(int(counts[-1] * share) for share in (0.13, 0.5, 0.77, 1.5))}:
        asked.clear()
        found = fit(skeleton, config, target)
        assert found.parameters == min(counts, key=lambda count: (abs(count - target), count))
        assert known[getattr(found.config, knob.field)] == found.parameters
        assert len(asked) <= 7


def test_bisection_equals_trying_everything_and_costs_a_logarithm() -> None:
    rng = random.Random(0)
    for shape in range(60):
        size = rng.choice([1, 2, 3, 17, 1000])
        steps = [rng.choice([0, 1, 5, 400]) if shape % 2 else 7 for _ in range(size)]
        refused = rng.randrange(1, size + 1) if shape % 3 == 0 else size
        counts = [sum(steps[: i + 1]) + 10 if i < refused else math.inf for i in range(size)]
        accepted = counts[:refused]
        for target in (1, 10, accepted[-1] // 3 + 5, accepted[-1], accepted[-1] + 100):
            asked: dict[int, float] = {}

            def count(index: int, seen: dict[int, float] = asked, known: list[float] = counts) -> float:
                return seen.setdefault(index, known[index])

            between(count, size, target)
            found = min(abs(c - target) for c in asked.values() if c < math.inf)
            assert found == min(abs(c - target) for c in accepted)
            assert len(asked) <= 4 * math.log2(size + 1) + 4


ESTIMATED: list[Any] = [
    peft.LoKrConfig(r=8),
    peft.LoKrConfig(r=3, decompose_both=True, decompose_factor=4),
    peft.RandLoraConfig(r=8),
    peft.C3AConfig(block_size=8),
    KRAdapterConfig(),
    peft.OFTConfig(oft_block_size=4, r=0),
    peft.OFTConfig(oft_block_size=4, r=0, block_share=True),
    SurmConfig(),
    SurmConfig(structure="kronecker"),
    SurmConfig(structure="ldr", displacement_rank=2),
    SurmConfig(structure="toeplitz", slot="adapter"),
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # OFT's and RandLoRA's remarks on their own settings
@pytest.mark.parametrize("config", ESTIMATED, ids=lambda c: type(c).__name__)
def test_estimates_differ_from_counts_by_a_constant(config: Any, skeleton: nn.Module) -> None:
    shapes = target_shapes(skeleton, config)
    for knob in size_settings_of(config):
        assert knob.estimate is not None
        values = list(knob.candidates(config, shapes))
        differences = set()
        for value in [*values[:: max(1, len(values) // 7)], values[-1]]:
            guess = knob.estimate(config, value, shapes)
            if guess == OUT_OF_REACH:
                continue
            changed = dataclasses.replace(config, **{knob.field: value, **knob.dependents(config, value)})
            differences.add(trainable_parameters(skeleton, changed) - guess)
        assert len(differences) == 1


KINDS: list[tuple[Any, dict[str, Any]]] = [
    (peft.C3AConfig(block_size=2), {"block_size": 4}),
    (peft.OFTConfig(oft_block_size=2, r=0), {"oft_block_size": 8}),
    (peft.OFTConfig(r=4, oft_block_size=0), {"oft_block_size": 2, "r": 0}),
    (peft.BOFTConfig(boft_block_size=8), {"boft_block_size": 2}),
    (peft.BOFTConfig(boft_block_size=2, boft_n_butterfly_factor=2), {"boft_block_size": 4}),  # 1 without CUDA
    (peft.VeraConfig(r=8), {"r": 13}),
    (peft.RandLoraConfig(r=1), {"r": 4, "randlora_alpha": 4 * 640}),
    (peft.FourierFTConfig(n_frequency=5), {"n_frequency": 100}),
    (peft.LoKrConfig(r=1, alpha=3), {"r": 2, "alpha": 6}),
    (peft.HRAConfig(r=8), {"r": 6}),
    (peft.PromptTuningConfig(num_virtual_tokens=4), {"num_virtual_tokens": 20}),
    (peft.PrefixTuningConfig(num_virtual_tokens=4), {"num_virtual_tokens": 20}),
    (peft.PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=8), {"encoder_hidden_size": 31}),
    (SurmConfig(), {"block_size": 7}),
    (SurmConfig(structure="ldr"), {"displacement_rank": 3}),
    (SurmConfig(structure="toeplitz", slot="adapter", block_size=3), {"block_size": 5}),
    (MoraConfig(r=5), {"r": 2}),
    (BottleneckConfig(bottleneck_size=3), {"bottleneck_size": 11}),
    (AbbaConfig(r=3), {"r": 5}),
    (KRAdapterConfig(), {"k1": 2}),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("config", "sizes"), KINDS, ids=[type(config).__name__ for config, _ in KINDS])
def test_the_size_that_a_budget_was_taken_from_is_found(
    config: Any, sizes: dict[str, Any], skeleton: nn.Module
) -> None:
    target = trainable_parameters(skeleton, dataclasses.replace(config, **sizes))
    assert target != trainable_parameters(skeleton, config)
    found = fit(skeleton, config, target)
    assert found.parameters == target == trainable_parameters(skeleton, found.config)
    assert found.changes == sizes
    assert all(getattr(found.config, name) == value for name, value in sizes.items())


def test_a_second_setting_is_tried_where_the_first_does_not_suffice(skeleton: nn.Module) -> None:
    found = fit(skeleton, SurmConfig(structure="ldr"), 2_560)
    assert found.within
    assert found.config.block_size is not None
    prompt = peft.PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=8)
    assert fit(skeleton, prompt, 9_000).within


def test_a_method_that_fits_at_no_size_says_why(skeleton: nn.Module) -> None:
    with pytest.raises(UserError, match=r"gralora_k"):
        fit(skeleton, peft.GraloraConfig(r=10, gralora_k=5), 1000)
    with pytest.raises(UserError, match=r"matches no module of .*; the nearest name is q_proj\."):
        fit(skeleton, peft.LoraConfig(target_modules=["q_porj"]), 1000)


def test_as_many_as_another_strategy(skeleton: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "model:\n  adapter:\n    class_path: peft.LoraConfig\n    init_args:\n      r: {}\n"
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "lora.yaml").write_text(text.format(3))
    (tmp_path / "lora.yaml").write_text(text.format(2))
    monkeypatch.chdir(tmp_path)
    config = SMoAConfig(r=2, num_subspaces=2)
    here = fit_budget(skeleton, config, Budget.parse({"like": "lora.yaml"}))
    assert (here.target, here.config.r) == (2 * SIDES, 4)  # type: ignore[union-attr]
    there = fit_budget(skeleton, config, Budget.parse({"like": "lora.yaml"}, tmp_path / "near"))
    assert (there.target, there.config.r) == (3 * SIDES, 6)  # type: ignore[union-attr]
    (tmp_path / "full.yaml").write_text("model:\n  adapter: null\n")
    everything = Budget.parse({"like": "full.yaml"}).target(skeleton)
    assert everything == sum(p.numel() for p in skeleton.parameters())

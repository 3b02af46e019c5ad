"""``target_parameters`` of peft's LoRA, and budgets of layers with ranks of their own: what is counted and refused."""

from __future__ import annotations

import copy
from typing import Any

import peft
import pytest
from torch import nn

from smoa_lightning.adapters import attach
from smoa_lightning.adapters.budget import Budget, fit_budget, trainable_parameters
from smoa_lightning.adapters.kradapter import KRAdapterConfig
from smoa_lightning.adapters.surm import SurmConfig
from smoa_lightning.common.errors import UserError

from .architectures import ARCHITECTURES

EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]


@pytest.fixture(scope="module")
def mixtral() -> nn.Module:
    return ARCHITECTURES["mixtral"]()


@pytest.mark.parametrize("rank", [1, 3, 4, 8])
def test_a_budget_chooses_the_rank_of_parameters(rank: int, mixtral: nn.Module) -> None:
    budget = trainable_parameters(mixtral, peft.LoraConfig(r=rank, target_parameters=EXPERTS))
    found = fit_budget(mixtral, peft.LoraConfig(r=2, target_parameters=EXPERTS), Budget.parse(budget))
    assert (found.config.r, found.parameters) == (rank, budget)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"target_parameters": [EXPERTS[0], "experts.down_prj"]},
            r"target_parameters entry 'experts.down_prj' matches no parameter of MixtralForCausalLM; .*down_proj",
        ),
        (
            {"target_parameters": ["down_proj.typo"], "target_modules": ["q_proj"]},
            r"target_parameters entry 'down_proj.typo' matches no parameter",
        ),
        (
            {"target_parameters": EXPERTS, "layers_to_transform": [0]},
            r"layers_to_transform has no effect on target_parameters: give the full names .* such as model\.layers\.0",
        ),
        (
            {"target_parameters": EXPERTS, "target_modules": ["q_proj"], "layers_to_transform": [0]},
            r"layers_to_transform has no effect on target_parameters",
        ),
        (
            {"target_parameters": EXPERTS, "exclude_modules": ["layers.1.*"]},
            r"exclude_modules has no effect on target_parameters",
        ),
    ],
)
def test_a_selection_that_peft_ignores_is_refused(settings: dict[str, Any], message: str, mixtral: nn.Module) -> None:
    with pytest.raises(UserError, match=message):
        attach(copy.deepcopy(mixtral), peft.LoraConfig(r=2, **settings), seed=0)


def test_full_names_next_to_selected_modules_and_tied_parameters_are_taken(mixtral: nn.Module) -> None:
    one = {"target_parameters": ["model.layers.0.mlp.experts.gate_up_proj"]}
    modules = {"target_modules": ["q_proj"], "layers_to_transform": [0]}
    model = attach(copy.deepcopy(mixtral), peft.LoraConfig(r=2, **modules, **one), seed=0)
    trained = {name.partition(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert all(".layers.0." in name for name in trained)
    assert len(trained) == 2
    tied = ARCHITECTURES["gemma"]()
    attach(tied, peft.LoraConfig(r=2, target_parameters=["lm_head.weight"]), seed=0)


def test_a_budget_searches_the_rank_of_parameters_that_no_pattern_names(mixtral: nn.Module) -> None:
    (first, *_) = [name for name, _ in mixtral.named_parameters() if name.endswith(EXPERTS[0])]
    for settings in (
        {"target_parameters": EXPERTS[:1], "rank_pattern": {first.removeprefix("model."): 3}},
        {"target_parameters": EXPERTS[:1], "target_modules": ["q_proj"], "rank_pattern": {"q_proj": 3}},
    ):
        budget = trainable_parameters(mixtral, peft.LoraConfig(r=8, **settings))
        found = fit_budget(mixtral, peft.LoraConfig(r=2, **settings), Budget.parse(budget))
        assert (found.config.r, found.parameters) == (8, budget)  # type: ignore[union-attr]


def test_full_names_of_parameters_select_a_layer(mixtral: nn.Module) -> None:
    both = peft.LoraConfig(r=2, target_parameters=EXPERTS[:1])
    (first, *_) = [name for name, _ in mixtral.named_parameters() if name.endswith(EXPERTS[0])]
    one = peft.LoraConfig(r=2, target_parameters=[first])
    assert 2 * trainable_parameters(mixtral, one) == trainable_parameters(mixtral, both)


PATTERN = {"(q|k|v|up)_proj": 1}


@pytest.mark.parametrize(
    ("config", "field", "values"),
    [
        (KRAdapterConfig(rank_pattern={"(q|k|v|up)_proj": 5}), "k1", range(1, 9)),
        (SurmConfig(structure="ldr", rank_pattern=PATTERN), "displacement_rank", range(1, 12)),
    ],
    ids=["kradapter", "ldr"],
)
@pytest.mark.parametrize("share", [0.7, 1.2, 1.5, 2.0])
def test_the_nearest_size_with_a_rank_pattern(config: Any, field: str, values: range, share: float) -> None:
    """By brute force over the values of the layers without a rank of their own."""
    skeleton = ARCHITECTURES["llama"]()
    budget = int(share * trainable_parameters(skeleton, config))
    found = fit_budget(skeleton, config, Budget.parse(budget))
    counts = []
    for value in values:
        changed = copy.copy(config)
        setattr(changed, field, value)
        counts.append(trainable_parameters(skeleton, changed))
    assert abs(found.parameters - budget) <= min(abs(count - budget) for count in counts)


def test_a_pattern_of_all_layers_fixes_the_size_of_every_rank() -> None:
    skeleton = ARCHITECTURES["llama"]()
    everywhere = {".*": 4}
    assert fit_budget(skeleton, KRAdapterConfig(rank_pattern=everywhere), Budget.parse(10_000)).fixed
    found = fit_budget(skeleton, SurmConfig(structure="ldr", rank_pattern={".*": 1}), Budget.parse(10_000))
    assert found.changes.keys() <= {"block_size"}


def test_a_scale_that_follows_the_blocks_is_said() -> None:
    skeleton = ARCHITECTURES["llama"]()
    config = SurmConfig(structure="kronecker", alpha_over_rank=True)
    budget = Budget.parse(3 * trainable_parameters(skeleton, config))
    assert "r of each layer follows the size of its blocks" in fit_budget(skeleton, config, budget).line()
    fixed = SurmConfig(structure="kronecker", alpha_over_rank=True, kronecker_rank=1)
    assert "follows" not in fit_budget(skeleton, fixed, budget).line()
    plain = SurmConfig(structure="kronecker")
    assert "follows" not in fit_budget(skeleton, plain, budget).line()

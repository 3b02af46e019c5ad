"""Settings with which SURM and MoRA are those of the authors' code; the defaults stay as they were."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, LlamaForCausalLM

from smoa_lightning.adapters import BottleneckConfig, MoraConfig, SurmConfig, SurmLinear, attach
from smoa_lightning.adapters.targets import SLOT_DROPOUTS, SLOT_TARGETS
from smoa_lightning.adapters.tuner.slot import is_after_attention
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import ADDED_LATER, content

from .surm_layers import randomise, surm_layers

Maker = Callable[..., LlamaForCausalLM]
ADAPTERS = Path(__file__).parents[2] / "experiments/adapters"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def layer(d_out: int, d_in: int, **settings: Any) -> SurmLinear:
    made = SurmLinear(nn.Linear(d_in, d_out).double(), "layer")
    made.set_adapter("default")
    made.update_layer("default", SurmConfig(**settings))
    return made


def test_kronecker_is_divided_by_its_rank() -> None:
    """The authors' forward, dense: x W^T + (alpha / r) x (B (x) A)^T."""
    for alpha, r, given in ((1.0, 4, None), (6.0, 2, 2)):
        made = layer(16, 16, structure="kronecker", alpha=alpha, alpha_over_rank=True, kronecker_rank=given)
        nn.init.normal_(made.surm_left["default"])
        B, A = made.surm_left["default"][0, 0], made.surm_right["default"][0, 0]
        assert B.shape[1] == A.shape[0] == r
        x = torch.randn(3, 16, dtype=torch.float64)
        expected = F.linear(x, made.base_layer.weight, made.base_layer.bias) + alpha / r * x @ torch.kron(B, A).T
        torch.testing.assert_close(made(x), expected)
        torch.testing.assert_close(made.get_delta_weight("default"), alpha / r * torch.kron(B, A))


@pytest.mark.parametrize("slot", ["update", "adapter"])
@pytest.mark.parametrize("structure", ["circulant", "toeplitz", "toeplitz_hadamard", "kronecker", "ldr"])
def test_standard_deviation_at_the_start(structure: Any, slot: Any, llama: Maker) -> None:
    for deviation, expected in ((1.0, 1.0), (0.02, 0.02), (None, None if structure == "kronecker" else 0.02)):
        model = attach(llama(), SurmConfig(structure=structure, slot=slot, initial_std=deviation), seed=0)
        right = torch.cat([module.surm_right["default"].flatten() for module in surm_layers(model)])
        if expected is not None:
            assert 0.75 * expected < right.std() < 1.25 * expected
            assert right.abs().max() > 1.7 * expected  # a uniform distribution ends at 1.73
        assert not any(module.surm_left["default"].any() for module in surm_layers(model))


def test_one_toeplitz_matrix_of_the_product() -> None:
    made = layer(12, 12, structure="toeplitz_hadamard")
    nn.init.normal_(made.surm_left["default"])
    product = (made.surm_left["default"] * made.surm_right["default"]).flatten()
    places = torch.arange(12)
    expected = product[(places[:, None] - places[None, :]).abs()]
    torch.testing.assert_close(made.get_delta_weight("default"), expected)


def bert(dropout: float = 0.5) -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 20, "intermediate_size": 33, "num_hidden_layers": 1}
    config = BertConfig(**sizes, num_attention_heads=2, vocab_size=40, hidden_dropout_prob=dropout)
    return BertForSequenceClassification(config).eval()


def test_the_slot_follows_the_dropout_of_bert() -> None:
    """As in the authors' BertSelfOutput and BertOutput: LayerNorm(adapter(dropout(dense(x))) + residual)."""
    model = attach(bert(), SurmConfig(slot="adapter", after_dropout=True), 0)
    randomise(model)
    prefix = "bert.encoder.layer.0"
    assert [slot.name for slot in surm_layers(model)] == [
        f"{prefix}.attention.output.dropout",
        f"{prefix}.output.dropout",
    ]
    block, slot = model.get_base_model().bert.encoder.layer[0].output, surm_layers(model)[1]
    x, residual = torch.randn(2, 3, 33), torch.randn(2, 3, 20)
    model.train()
    torch.manual_seed(5)
    found = block(x, residual)
    torch.manual_seed(5)
    dropped = nn.functional.dropout(block.dense(x), 0.5)
    torch.testing.assert_close(found, block.LayerNorm(dropped + slot.residual(dropped, "default") + residual))


@pytest.mark.parametrize("make", [SurmConfig, BottleneckConfig])
def test_places_after_the_dropout(make: Any, llama: Maker, gpt2: Callable[..., nn.Module], token_ids: Tensor) -> None:
    more = {"slot": "adapter"} if make is SurmConfig else {"bottleneck_size": 3}
    for base, expected in (
        (gpt2(), ["attn.resid_dropout", "mlp.dropout"]),
        (llama(), ["self_attn.o_proj", "mlp.down_proj"]),  # it has no dropout, so that both places are one
        (bert(), ["attention.output.dropout", "output.dropout"]),
    ):
        adapted = attach(base, make(after_dropout=True, **more), 0)
        names = [n for n, m in adapted.base_model.model.named_modules() if hasattr(m, "residual")]
        assert {name.split(".", 3)[-1].removeprefix("0.").removeprefix("1.") for name in names} <= set(expected), names
        assert len(names) == (2 if "bert" in names[0] else 4)
        adapted(token_ids)
    only = attach(bert(), make(after_dropout=True, placement="pfeiffer", **more), 0)
    names = [n for n, m in only.base_model.model.named_modules() if hasattr(m, "residual")]
    assert names == ["bert.encoder.layer.0.output.dropout"]
    with pytest.raises(UserError, match=r"after_dropout is true, but the architecture 'opt' has no separate dropout"):
        make(after_dropout=True, **more).default_targets("opt")


def test_dropout_of_the_slots_after_attention_alone() -> None:
    """In the authors' classes the dropout reaches the adapter of BertSelfOutput, and not that of BertOutput."""
    for after_dropout in (False, True):
        config = SurmConfig(slot="adapter", dropout=0.5, dropout_place="attention", after_dropout=after_dropout)
        attention, feedforward = surm_layers(attach(bert(), config, 0))
        assert isinstance(attention.dropouts["default"], nn.Dropout)
        assert attention.dropouts["default"].p == 0.5
        assert isinstance(feedforward.dropouts["default"], nn.Identity)
    for places in (*SLOT_TARGETS.values(), *filter(None, SLOT_DROPOUTS.values())):
        assert [[is_after_attention(name) for name in names] for names in places] == [[True], [False]]


@pytest.mark.parametrize("kind", ["sharing", "rotation"])
@pytest.mark.parametrize("shape", [(64, 64), (65, 65), (15, 15), (15, 16), (30, 8), (576, 192)])
def test_side_of_mora(kind: Any, shape: tuple[int, int]) -> None:
    """The authors' side is int(sqrt((d_in + d_out) r) + 0.5), halved and doubled for rotation; ours is at most min."""
    for r in (1, 2, 3):
        root = math.sqrt(sum(shape) * r)
        for rounding, value in (("floor", int(root)), ("nearest", int(root + 0.5))):
            config = MoraConfig(r=r, type=kind, rounding=rounding)  # type: ignore[arg-type]
            side = min(value, *shape)
            assert config.size(*shape) == (side // 2 * 2 if kind == "rotation" else side)


def test_shipped_files_set_the_published_values() -> None:
    files = sorted(ADAPTERS.glob("*_published.yaml"))
    assert len(files) == 6
    for file in files:
        settings = yaml.safe_load(file.read_text())["model"]["adapter"]
        make = MoraConfig if "Mora" in settings["class_path"] else SurmConfig
        config: Any = make(**settings["init_args"])
        slot, structure = getattr(config, "slot", None), getattr(config, "structure", None)
        assert getattr(config, "after_dropout", None) == (None if slot is None else slot == "adapter")
        if (slot, structure) == ("update", "circulant"):
            assert config.initial_std == 1
        if (slot, structure) == ("adapter", "kronecker"):
            assert config.initial_std == 0.02
        if (slot, structure) == ("update", "kronecker"):
            assert config.alpha_over_rank
        assert (slot, structure) != ("adapter", "toeplitz")


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (
            SurmConfig,
            {"alpha_over_rank": True},
            "alpha_over_rank is True, but has no effect under structure 'circulant'",
        ),
        (SurmConfig, {"after_dropout": True}, "after_dropout is True, but has no effect under slot 'update'"),
        (
            SurmConfig,
            {"dropout_place": "attention"},
            "dropout_place is 'attention', but has no effect under slot 'update'",
        ),
        (SurmConfig, {"slot": "adapter", "dropout_place": "mlp"}, "must be one of all, attention"),
        (
            SurmConfig,
            {"slot": "adapter", "dropout_place": "attention", "placement": "pfeiffer"},
            "dropout_place is 'attention', but has no effect under placement 'pfeiffer'",
        ),
        (SurmConfig, {"initial_std": 0.0}, "initial_std is 0.0, but must be above 0, or absent"),
        (MoraConfig, {"rounding": "up"}, "rounding is 'up', but must be one of floor, nearest"),
    ],
)
def test_bad_settings(make: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**settings)


def test_settings_added_later_do_not_change_signatures() -> None:
    path = "smoa_lightning.adapters.SurmConfig"
    before = {"class_path": path, "init_args": {"structure": "circulant"}}
    now = {"class_path": path, "init_args": {"structure": "circulant", **ADDED_LATER}}
    assert content({"model": {"adapter": now}}) == content({"model": {"adapter": before}})
    changed = {"class_path": path, "init_args": {"structure": "circulant", "initial_std": 1.0}}
    assert content({"model": {"adapter": changed}}) != content({"model": {"adapter": before}})
    lora = {"class_path": "peft.LoraConfig", "init_args": {"rank_pattern": None}}
    assert content({"model": {"adapter": lora}}) == {"model": {"adapter": lora}}

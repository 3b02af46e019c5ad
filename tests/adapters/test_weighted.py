"""``add_weighted_adapter``: exact sums of updates, truncated ones, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from smoa_lightning.adapters import (
    AbbaConfig,
    BottleneckConfig,
    HyperAdaptConfig,
    KRAdapterConfig,
    MoraConfig,
    SMoAConfig,
    SurmConfig,
    attach,
)
from smoa_lightning.adapters.tuner import AdapterLayer
from smoa_lightning.common.errors import UserError

Maker = Callable[..., LlamaForCausalLM]
WEIGHTS = {"default": 0.7, "second": -1.3}
# Two adapters each that can be summed exactly: ranks and alpha may differ where the sum has room for it.
EXACT: dict[str, tuple[Any, Any]] = {
    "smoa_none": (
        SMoAConfig(r=4, partition="none", num_subspaces=1, alpha=2.0),
        SMoAConfig(r=3, partition="none", num_subspaces=1),
    ),
    "smoa_blocks": (SMoAConfig(r=4, alpha=6.0), SMoAConfig(r=3)),
    "smoa_energy": (SMoAConfig(r=3, partition="spectral_energy"), SMoAConfig(r=4, partition="spectral_energy")),
    "smoa_noise": tuple(SMoAConfig(r=r, partition="random_blocks", modulation="random") for r in (2, 3)),
    "smoa_grid": tuple(SMoAConfig(r=r, partition="grid_blocks") for r in (2, 4)),
    "mora_sharing": (MoraConfig(r=2, alpha=3.0), MoraConfig(r=2)),
    "mora_rotation": tuple(MoraConfig(r=2, type="rotation") for _ in range(2)),
    "circulant": (SurmConfig(alpha=2.0), SurmConfig()),
    "circulant_tiles": tuple(SurmConfig(block_size=6) for _ in range(2)),
    "hadamard": tuple(SurmConfig(structure="toeplitz_hadamard") for _ in range(2)),
    "abba": (AbbaConfig(r=2, alpha=3.0), AbbaConfig(r=1)),
    "ldr": (SurmConfig(structure="ldr", displacement_rank=2), SurmConfig(structure="ldr", alpha=0.5)),
}


def layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, AdapterLayer)]


def two_adapters(llama: Maker, first: Any, second: Any, **targets: Any) -> PeftModel:
    model = attach(llama(), copy.deepcopy(first), 0)
    model.add_adapter("second", copy.deepcopy(second))
    torch.manual_seed(3)
    for layer in layers(model):
        for name in layer.adapter_layer_names:
            for parameter in getattr(layer, name).values():
                nn.init.normal_(parameter, std=0.3)
    return model.eval()


def weighted(layer: Any) -> Tensor:
    return sum(w * layer.dense_update(name) for name, w in WEIGHTS.items() if name in layer.configs)


@pytest.mark.parametrize("method", EXACT)
def test_linear_is_exact(method: str, llama: Maker, token_ids: Tensor, tmp_path: Path) -> None:
    model = two_adapters(llama, *EXACT[method])
    before = model(token_ids).logits
    model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "sum", combination_type="linear")
    for layer in layers(model):
        torch.testing.assert_close(layer.dense_update("sum"), weighted(layer), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(token_ids).logits, before)  # it is not active yet
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".sum" in n)
    model.set_adapter("sum")
    expected = model(token_ids).logits
    assert (expected - before).abs().max() > 0.01
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    again = PeftModel.from_pretrained(llama(), tmp_path / "sum")
    torch.testing.assert_close(again(token_ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_adapters_on_different_layers(llama: Maker) -> None:
    for method in ("smoa_blocks", "circulant", "mora_sharing", "ldr"):
        first, second = copy.deepcopy(EXACT[method])
        first.target_modules, second.target_modules = ["q_proj", "v_proj"], ["v_proj", "up_proj"]
        model = two_adapters(llama, first, second)
        model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "sum", combination_type="linear")
        assert model.peft_config["sum"].target_modules == ["q_proj", "up_proj", "v_proj"]
        assert len(layers(model)) == 6
        for layer in layers(model):
            torch.testing.assert_close(layer.dense_update("sum"), weighted(layer), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["smoa_none", "smoa_blocks", "smoa_energy", "abba"])
def test_svd_is_the_best_update_of_its_rank(method: str, llama: Maker) -> None:
    model = two_adapters(llama, *EXACT[method])
    for rank, name in ((3, "three"), (None, "largest"), (10, "ten")):
        model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), name, svd_rank=rank)
        for layer in layers(model):
            total = weighted(layer)
            U, S, Vh = torch.linalg.svd(total)
            kept = rank or 4
            best = U[:, :kept] @ torch.diag(S[:kept]) @ Vh[:kept]
            torch.testing.assert_close(layer.dense_update(name), best, rtol=1e-3, atol=1e-4)
    if method != "abba":
        assert model.peft_config["largest"].partition == "none"


@pytest.mark.parametrize("settings", [{}, {"block_size": 6, "kronecker_rank": 3}, {"alpha_over_rank": True}], ids=str)
def test_svd_of_kronecker_is_the_nearest_product(settings: dict[str, Any], llama: Maker) -> None:
    config = SurmConfig(structure="kronecker", **settings)
    model = two_adapters(llama, config, config)
    model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "sum")
    layer = layers(model)[0]
    distance = (layer.dense_update("sum") - weighted(layer)).norm()
    assert distance < weighted(layer).norm()
    torch.manual_seed(0)
    for name in ("surm_left", "surm_right"):  # no near product is nearer
        factor = getattr(layer, name)["sum"]
        kept = factor.detach().clone()
        for _ in range(20):
            factor.data = kept + 0.02 * torch.randn_like(kept)
            assert (layer.dense_update("sum") - weighted(layer)).norm() > distance
        factor.data = kept
    model.add_weighted_adapter(["default"], [2.0], "twice")
    for layer in layers(model):
        torch.testing.assert_close(layer.dense_update("twice"), 2 * layer.dense_update("default"))


@pytest.mark.parametrize("k1", [None, 5])
def test_svd_of_kradapter_is_the_nearest_product_of_every_row(k1: int | None, llama: Maker) -> None:
    """The leading term of numpy's decomposition of each row, as a matrix; without a cut it is the nearest update."""
    config = KRAdapterConfig(k1=k1, target_modules=["q_proj"])
    model = two_adapters(llama, config, KRAdapterConfig(k1=k1, scaling=0.5, target_modules=["q_proj"]))
    model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "sum")
    model.add_weighted_adapter(["default"], [2.0], "twice")
    for layer in layers(model):
        torch.testing.assert_close(layer.dense_update("twice"), 2 * layer.dense_update("default"))
        found, (_, columns) = layer.dense_update("sum"), layer.kradapter_U["sum"].shape
        for row, total in enumerate(weighted(layer).detach()):
            assert total.numel() % columns == 0
            U, S, Vh = np.linalg.svd(total.view(-1, columns).numpy())
            nearest = torch.tensor(np.outer(U[:, 0] * S[0], Vh[0])).flatten()
            torch.testing.assert_close(found[row], nearest, rtol=1e-4, atol=1e-5)


REFUSED: list[tuple[Any, Any, dict[str, Any], str]] = [
    (HyperAdaptConfig(), HyperAdaptConfig(), {}, "HyperAdaptConfig cannot hold a sum of updates"),
    (
        BottleneckConfig(bottleneck_size=2),
        BottleneckConfig(bottleneck_size=2),
        {},
        "BottleneckConfig cannot hold a sum",
    ),
    (SurmConfig(slot="adapter"), SurmConfig(slot="adapter"), {}, "no combination_type 'svd': the adapter slot is"),
    (SurmConfig(structure="toeplitz"), SurmConfig(structure="toeplitz"), {}, "sums of structure 'toeplitz' are not of"),
    (SurmConfig(), SurmConfig(), {}, "no combination_type 'svd': structure 'circulant' has 'linear'"),
    (SurmConfig(), SurmConfig(block_size=5), {"combination_type": "linear"}, "need the same block_size, .* None and 5"),
    (AbbaConfig(r=1), AbbaConfig(r=1), {"combination_type": "ties"}, "no combination_type 'ties': it has 'linear' and"),
    (AbbaConfig(r=4), AbbaConfig(r=3), {"combination_type": "linear"}, r"AbbaConfig\.r is 25, but layer .* has only"),
    (KRAdapterConfig(), KRAdapterConfig(), {"combination_type": "linear"}, "it has 'svd', the nearest Khatri-Rao"),
    (KRAdapterConfig(k1=2), KRAdapterConfig(), {}, "need the same k1, but they have 2 and None"),
    (MoraConfig(r=2), MoraConfig(r=2), {}, "no combination_type 'svd': its sums are exact with 'linear'"),
    (MoraConfig(r=2), MoraConfig(r=3), {"combination_type": "linear"}, "need the same r, but they have 2 and 3"),
    (SMoAConfig(), SMoAConfig(), {"combination_type": "ties"}, "no combination_type 'ties': it has 'linear' and 'svd'"),
    (SMoAConfig(), SMoAConfig(num_subspaces=4), {"combination_type": "linear"}, "need the same num_subspaces"),
    (SMoAConfig(), SMoAConfig(), {"svd_rank": 11}, "rank 11, but it must be between 1 and 10"),
    (SMoAConfig(r=3, partition="grid_blocks"),) * 2 + ({"combination_type": "linear"}, "ranks of a grid"),  # type: ignore
    (SMoAConfig(rank_pattern={"q_proj": 2}), SMoAConfig(), {}, "adapters with rank_pattern cannot be combined"),
]


@pytest.mark.parametrize(
    ("first", "second", "more", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_refused_sums(first: Any, second: Any, more: Any, message: str, llama: Maker, token_ids: Tensor) -> None:
    """One sentence, and the model is as it was."""
    model = two_adapters(llama, first, second)
    names, before = [*model.state_dict()], model(token_ids).logits
    with pytest.raises(UserError, match=message):
        model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "sum", **more)
    assert [*model.state_dict()] == names
    assert [*model.peft_config] == ["default", "second"]
    torch.testing.assert_close(model(token_ids).logits, before)


def test_bad_arguments(llama: Maker) -> None:
    model = two_adapters(llama, *EXACT["circulant"])
    for adapters, weights, name, message in (
        (["default", "secnd"], [1, 1], "sum", "there is no adapter 'secnd'; nearest: second"),
        (["default", "second"], [1], "sum", "give one weight for each of several different adapters, not 1 weights"),
        (["default", "default"], [1, 1], "sum", "give one weight for each of several different adapters"),
        (["default", "second"], [1, float("nan")], "sum", "the weight nan is not a finite number"),
        (["default", "second"], [1, 1], "second", "the adapter 'second' exists already"),
    ):
        with pytest.raises(UserError, match=message):
            model.add_weighted_adapter(adapters, weights, name, combination_type="linear")

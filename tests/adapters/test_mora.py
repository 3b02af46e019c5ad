"""MoRA against its definition entry by entry, with transformers' own rotary embedding for the rotations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.pytorch_utils import Conv1D

from smoa_lightning.adapters import MoraConfig, MoraLinear, update_rank
from smoa_lightning.adapters.mora import compress
from smoa_lightning.common.errors import UserError

TYPES: list[Any] = ["sharing", "rotation"]
# (d_out, d_in): odd and even, wide and tall, more pieces of input than of output, and fewer.
SHAPES = [(13, 10), (10, 13), (24, 24), (7, 60), (60, 7), (9, 30)]


def make_layer(config: MoraConfig, shape: tuple[int, int], conv: bool = False) -> MoraLinear:
    torch.manual_seed(3)
    base = Conv1D(*shape) if conv else nn.Linear(shape[1], shape[0])
    nn.init.normal_(base.bias)
    layer = MoraLinear(base.double().requires_grad_(False), "layer")
    layer.set_adapter("default")
    layer.update_layer("default", config)
    nn.init.normal_(layer.mora_M["default"])
    return layer


def turn(position: int, size: int) -> Tensor:
    """R_c as a matrix: what transformers' rotary embedding makes of the unit vectors at one position."""
    config = LlamaConfig(hidden_size=2 * size, num_attention_heads=2, head_dim=size, max_position_embeddings=64)
    identity = torch.eye(size).view(1, 1, size, size)
    cos, sin = LlamaRotaryEmbedding(config)(identity, torch.full((1, size), position))
    return apply_rotary_pos_emb(identity, identity, cos, sin)[0][0, 0].double().T


def dense_update(M: Tensor, kind: str, shape: tuple[int, int]) -> Tensor:
    """D entry by entry: position p of the layout holds input p mod d_in."""
    (d_out, d_in), size = shape, M.shape[0]
    pieces = math.ceil(d_in / size)
    result = torch.zeros(shape, dtype=torch.float64)
    blocks = [M @ turn(c, size) for c in range(pieces)] if kind == "rotation" else []
    for o in range(d_out):
        for p in range(pieces * size):
            if kind == "sharing":
                result[o, p % d_in] += M[o % size, p % size]
            elif o % (pieces * size) // size == p // size:  # piece c of the output is made of piece c of the input
                result[o, p % d_in] += blocks[p // size][o % (pieces * size) % size, p % size]
    return result


@pytest.mark.parametrize("conv", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("r", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", TYPES)
def test_layer_is_the_definition(kind: Any, shape: tuple[int, int], r: int, conv: bool) -> None:
    layer = make_layer(MoraConfig(r=r, type=kind, alpha=2.0), shape, conv)
    M = layer.mora_M["default"]
    delta = dense_update(M.detach(), kind, shape) * 2 / r
    x = torch.randn(3, 4, shape[1], dtype=torch.float64)
    # transformers computes its angles in float32
    close = {"rtol": 1e-5, "atol": 1e-5} if kind == "rotation" else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ delta.T, **close)
    torch.testing.assert_close(layer.dense_update("default"), delta, **close)
    torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ layer.dense_update("default").T)
    assert 0 < update_rank(delta).numerical <= layer.rank_bound("default")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", TYPES)
def test_gradcheck(kind: Any, shape: tuple[int, int]) -> None:
    layer = make_layer(MoraConfig(r=2, type=kind), shape)
    x = torch.randn(2, shape[1], dtype=torch.float64, requires_grad=True)
    apply = compress.sharing if kind == "sharing" else compress.rotation
    M = layer.mora_M["default"].detach().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x, M: apply(x, M, shape[0]), (x, M))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("r", [1, 4, 8])
@pytest.mark.parametrize("kind", TYPES)
def test_no_more_parameters_than_lora_of_that_rank(kind: Any, r: int, shape: tuple[int, int]) -> None:
    layer = make_layer(MoraConfig(r=r, type=kind), shape)
    count = sum(p.numel() for p in layer.parameters() if p.requires_grad)
    size = math.isqrt(count)
    assert size**2 == count <= r * sum(shape)
    step = 2 if kind == "rotation" else 1
    assert size % step == 0
    assert (size + step) ** 2 > r * sum(shape) or size + step > min(shape)  # and no larger one would do


def test_sharing_of_one_group_is_the_matrix_itself() -> None:
    layer = make_layer(MoraConfig(r=6), (12, 12))
    assert torch.equal(layer.dense_update("default"), layer.mora_M["default"])


def test_rotation_has_a_higher_rank_than_sharing() -> None:
    """Every piece of the rotation has outputs of its own, so its rank is not bounded by the size of M."""
    ranks = {}
    for kind in TYPES:
        layer = make_layer(MoraConfig(r=1, type=kind), (30, 30))
        assert layer.mora_M["default"].shape == ((7, 7) if kind == "sharing" else (6, 6))
        ranks[kind] = update_rank(layer.dense_update("default")).numerical
        assert ranks[kind] == layer.rank_bound("default")
    assert ranks == {"sharing": 7, "rotation": 30}


def test_starts_at_zero_in_float32() -> None:
    layer = MoraLinear(nn.Linear(8, 6).bfloat16().requires_grad_(False), "layer")
    layer.update_layer("default", MoraConfig(r=2))
    assert layer.mora_M["default"].dtype == torch.float32
    assert not layer.mora_M["default"].any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "rotating"}, ["MoraConfig.type", "nearest: rotation"]),
        ({"r": 0}, ["MoraConfig.r is 0", "at least 1"]),
        ({"alpha": -1.0}, ["MoraConfig.alpha is -1.0", "above 0"]),
        ({"dropout": 1.5}, ["MoraConfig.dropout is 1.5"]),
    ],
)
def test_bad_settings_are_one_clear_sentence(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        MoraConfig(**settings)
    assert all(word in str(caught.value) for word in words)


def test_rotation_needs_a_pair_of_coordinates() -> None:
    with pytest.raises(UserError, match=r"layer \(1 x 8\) has no such pair"):
        make_layer(MoraConfig(type="rotation"), (1, 8))
    make_layer(MoraConfig(type="sharing"), (1, 8))

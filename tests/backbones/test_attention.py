"""The kernel that is chosen for bfloat16 on a CPU, against torch's own one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from smoa_lightning.backbones import attention
from smoa_lightning.backbones.attention import PRODUCTS, follow_kernel, kernel_of
from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate, provenance

from ..adapters.architectures import ARCHITECTURES


class _Layer(torch.nn.Module):
    num_key_value_groups, is_causal = 3, True


def _inputs(dtype: torch.dtype, rows: int = 3, tokens: int = 20) -> tuple[list[Tensor], Tensor]:
    """Return query, key and value with 6 heads on 2 key heads, and the gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((rows, heads, tokens, 8) for heads in (6, 2, 2))
    tensors = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    return tensors, torch.randn(rows, tokens, 6, 8, generator=generator).to(dtype)


def _mask(kind: str, dtype: torch.dtype, rows: int = 3, tokens: int = 20) -> Tensor | None:
    """Return no mask, that of padded rows, that of packed rows (by blocks), or an additive one."""
    causal = torch.ones(rows, 1, tokens, tokens, dtype=torch.bool).tril()
    if kind == "causal":
        return None
    if kind == "packed":
        block = torch.arange(tokens) // 7
        return causal & (block[:, None] == block)
    padded = causal & (torch.arange(tokens) < torch.tensor([20, 11, 5])[:, None])[:, None, None]
    return padded if kind == "padded" else torch.zeros(padded.shape).masked_fill_(~padded, -1e30).to(dtype)


@pytest.mark.parametrize("kind", ["causal", "padded", "packed", "additive"])
@pytest.mark.parametrize("piece", [1, 2**20])
@pytest.mark.parametrize("memory", ["heads first", "tokens first"])
def test_gradients_are_those_of_torch(kind: str, piece: int, memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, for every mask, in one piece and row by row, and as a projection leaves the heads in memory."""
    monkeypatch.setattr(attention, "PIECE", piece)
    tensors, grad = _inputs(torch.float64)
    if memory == "tokens first":
        tensors = [t.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for t in tensors]
        grad = grad.transpose(1, 2).contiguous().transpose(1, 2)
    mask = _mask(kind, torch.float64)
    output = sdpa_attention_forward(_Layer(), *tensors, mask, scaling=0.3)[0]  # type: ignore[arg-type]
    expected = torch.autograd.grad(output, tensors, grad)
    with torch.no_grad():
        found = attention._gradients(grad, *tensors, mask, 0.3)
    for own, of_torch in zip(found, expected, strict=True):
        assert torch.allclose(own, of_torch, rtol=1e-10, atol=1e-12)


def test_bfloat16_is_as_exact_as_torch() -> None:
    """The output is the same; the gradients are no further from float64 than 1.5 times those of torch."""
    exact, grad = _inputs(torch.float64, tokens=64)
    exact_output = sdpa_attention_forward(_Layer(), *exact, None, scaling=0.3)[0]
    expected = torch.autograd.grad(exact_output, exact, grad)
    results = []
    for function in (sdpa_attention_forward, attention.attention):
        tensors = [tensor.detach().bfloat16().requires_grad_() for tensor in exact]
        output: Any = function(_Layer(), *tensors, None, scaling=0.3)[0]  # type: ignore[operator]
        gradients = torch.autograd.grad(output, tensors, grad.bfloat16())
        errors = [float((g - e).norm() / e.norm()) for g, e in zip(gradients, expected, strict=True)]
        results.append((output, max(errors)))
    assert "_Attention" in type(output.grad_fn).__name__
    assert torch.equal(results[0][0], results[1][0])
    assert results[1][1] < 1.5 * results[0][1]


@pytest.mark.parametrize("reason", ["float32", "no gradient", "dropout", "long"])
def test_torch_does_the_rest(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (query, key, value), _ = _inputs(torch.float32 if reason == "float32" else torch.bfloat16)
    if reason == "no gradient":
        query, key, value = query.detach(), key.detach(), value.detach()
    monkeypatch.setattr(attention, "LONGEST", 19 if reason == "long" else 20)
    dropout = 0.1 if reason == "dropout" else 0.0
    output, _ = attention.attention(_Layer(), query, key, value, None, dropout=dropout)
    assert "_Attention" not in type(output.grad_fn).__name__


def test_choice_is_in_the_facts_and_a_checkpoint_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    location = locate(BackboneConfig("embedded"))
    monkeypatch.setattr(attention, "has_matrix_unit", lambda: False)
    assert kernel_of(load_model(BackboneConfig("embedded", dtype="bfloat16"), location)) == "sdpa"
    monkeypatch.setattr(attention, "has_matrix_unit", lambda: True)
    chosen = load_model(BackboneConfig("embedded", dtype="bfloat16"), location)
    assert provenance(location, chosen)["attention"] == PRODUCTS
    follow_kernel(chosen, PRODUCTS)
    assert kernel_of(chosen) == PRODUCTS
    follow_kernel(chosen, None)  # of a version without this kernel
    assert kernel_of(chosen) == "sdpa"
    named = load_model(BackboneConfig("embedded", dtype="bfloat16", attn_implementation="sdpa"), location)
    follow_kernel(named, PRODUCTS)  # the setting decides
    assert kernel_of(named) == "sdpa"
    assert kernel_of(load_model(BackboneConfig("embedded"), location)) == "sdpa"


@pytest.mark.parametrize("family", sorted((attention.FAMILIES & set(ARCHITECTURES)) - {"gemma2"}))
def test_every_family(family: str) -> None:
    """The loss is bit-equal, the gradient of the embedding within rounding. Gemma 2 has no sdpa in transformers."""
    torch.manual_seed(0)
    ids = torch.randint(5, 40, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    model: Any = ARCHITECTURES[family](attn_implementation="sdpa").bfloat16()  # type: ignore[call-arg]
    found = []
    for kernel in ("sdpa", PRODUCTS):
        model.set_attn_implementation(kernel)
        assert kernel_of(model) == kernel
        loss = model(input_ids=ids, attention_mask=mask, labels=ids).loss
        found.append((loss, *torch.autograd.grad(loss, [model.get_input_embeddings().weight])))
    assert torch.equal(found[0][0], found[1][0])
    assert (found[0][1] - found[1][1]).norm() < 0.02 * found[0][1].norm()


def test_matrix_unit_is_a_fact_of_the_processor() -> None:
    found = attention.has_matrix_unit()
    assert isinstance(found, bool)
    if found and Path("/proc/cpuinfo").exists():
        assert "amx_tile" in Path("/proc/cpuinfo").read_text()

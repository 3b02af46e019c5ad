"""The attention of a backbone whose settings name no kernel: that of torch, with a faster backward where it has one.

The kernel ``sdpa`` of torch has a slow backward for bfloat16 on a CPU with a matrix unit (AMX): short rows do not use
the unit. The kernel ``sdpa_products`` has the same forward, bit for bit. Its backward computes the probabilities
again and uses five matrix products. It stores nothing more than ``sdpa`` does. docs/speed.md has the measurement behind
``LONGEST``.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

# Architectures in which attention only follows its mask and positions; the tests of prefix trees cover each of them.
FAMILIES = frozenset(
    {"gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "mixtral"}
    | {"olmoe", "opt", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"}
)
PLAIN, PRODUCTS = "sdpa", "sdpa_products"
LONGEST = 512  # tokens of a row: above, the backward of torch is as fast
PIECE = 2**20  # probabilities that the backward computes at a time, so that they stay in the cache


def choose_kernel(model: PreTrainedModel) -> None:
    """Choose the kernel for a model that was loaded with transformers' own choice.

    ``sdpa`` in bfloat16 becomes ``sdpa_products`` on a machine with a matrix unit. The kernel decides in each call
    whether its own backward is faster, so the device and the length of rows need not be known here. Other kernels,
    dtypes, architectures and machines do not change.
    """
    supported = model.config.model_type in FAMILIES and model.config._attn_implementation == PLAIN
    if supported and model.dtype == torch.bfloat16 and has_matrix_unit():
        model.set_attn_implementation(PRODUCTS)


def has_matrix_unit() -> bool:
    """Return whether the CPU multiplies bfloat16 matrices in AMX; without it the products are slower than ``sdpa``."""
    return bool(torch.cpu._is_amx_tile_supported())


def kernel_of(model: Any) -> str | None:
    """Return the attention kernel of a model, or of the model inside an adapter."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(getattr(base, "config", None), "_attn_implementation", None)


def follow_kernel(model: Any, kernel: str | None) -> None:
    """Let a resumed run use the kernel of its checkpoint, so that its gradients stay the same, bit for bit.

    Args:
        model: The model, with or without an adapter.
        kernel: The kernel in the checkpoint; ``None`` in one of version 0.1, where it was ``sdpa``.
    """
    if kernel_of(model) == PRODUCTS and kernel != PRODUCTS:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        base.set_attn_implementation(PLAIN)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return the attention of ``sdpa``, (rows, tokens, heads, size), with the faster backward where it is faster.

    Args:
        module: The attention layer.
        query: (rows, heads, tokens, size).
        key: (rows, key heads, tokens, size).
        value: (rows, key heads, tokens, size).
        attention_mask: (rows or 1, 1, tokens, tokens), true or zero where a token sees another one; ``None`` is causal.
        dropout: Share of the probabilities that are dropped.
        scaling: Factor of the scores; ``None`` is 1 / sqrt(size).
        kwargs: Further arguments of ``sdpa``.
    """
    if dropout == 0 and _pays(query, key, value) and _is_plain(module, query, key, attention_mask, kwargs):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        output: Tensor = _Attention.apply(query, key, value, attention_mask, module, scale)  # type: ignore[no-untyped-call]
        return output, None
    arguments = {"dropout": dropout, "scaling": scaling, **kwargs}
    return sdpa_attention_forward(module, query, key, value, attention_mask, **arguments)


def _pays(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether a backward will follow, and products are faster in it."""
    tensors = (query, key, value)
    if torch.compiler.is_compiling() or query.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    bfloat16 = all(tensor.dtype == torch.bfloat16 for tensor in tensors)
    return differentiated and bfloat16 and 1 < query.shape[2] == key.shape[2] <= LONGEST


def _is_plain(module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, kwargs: dict[str, Any]) -> bool:
    """Return whether the attention is a softmax of scaled and masked scores, with no further argument."""
    if any(kwargs.get(name) is not None for name in ("cache", "position_bias", "softcap")):
        return False
    if mask is not None:
        return mask.shape[1] == 1 and not mask.requires_grad
    causal = kwargs.get("is_causal")
    return bool(getattr(module, "is_causal", True) if causal is None else causal)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, module: nn.Module, scale: float
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale = scale
        output: Tensor = sdpa_attention_forward(module, query, key, value, mask, scaling=scale)[0]
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask = ctx.saved_tensors
        return *_gradients(grad, query, key, value, mask, ctx.scale), None, None, None


def _gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value for that of the output, (rows, tokens, heads, size).

    With the probabilities P = softmax(s Q K^T + M) and D, the gradient of the scores: dV = P^T g, dQ = s D K and
    dK = s D^T Q. The heads that share a key are one matrix, so their gradients are summed by the product.
    """
    (rows, heads, tokens, _), shared = query.shape, key.shape[1]
    bias = _bias(mask, tokens, query.dtype)
    gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    step = max(1, PIECE // (heads * tokens * tokens))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        q, k, v = (tensor[part].reshape(-1, tokens, tensor.shape[-1]) for tensor in (query, key, value))
        g = grad[part].transpose(1, 2).reshape(len(k), -1, grad.shape[-1])
        q = q.reshape(len(k), -1, q.shape[-1])
        scores = torch.bmm(q, k.transpose(1, 2)).view(-1, shared, heads // shared, tokens, tokens)
        scores = torch.add(bias[part] if len(bias) > 1 else bias, scores, alpha=scale)
        p = scores.softmax(dim=-1).view(len(k), -1, tokens)
        d = torch._softmax_backward_data(torch.bmm(g, v.transpose(1, 2)), p, -1, p.dtype)
        found = torch.bmm(d, k), torch.bmm(d.transpose(1, 2), q), torch.bmm(p.transpose(1, 2), g)
        for whole, piece in zip(gradients, found, strict=True):
            whole[part] = piece.view_as(whole[part])
    return gradients[0].mul_(scale), gradients[1].mul_(scale), gradients[2]


def _bias(mask: Tensor | None, tokens: int, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores, (rows or 1, 1, 1, tokens, tokens)."""
    if mask is None:
        return _causal_bias(tokens, dtype)
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
    return mask[:, :, None]


@functools.lru_cache(maxsize=4)
def _causal_bias(tokens: int, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.full((tokens, tokens), torch.finfo(dtype).min, dtype=dtype).triu(1)[None, None, None]


AttentionInterface.register(PRODUCTS, attention)
AttentionMaskInterface.register(PRODUCTS, sdpa_mask)

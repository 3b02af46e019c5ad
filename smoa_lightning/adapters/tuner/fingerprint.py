"""A short fingerprint of a base weight, saved with the adapter and compared when the adapter is loaded."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

HASH_WORDS = 4
SAMPLES = 16
LENGTH = HASH_WORDS + SAMPLES
_KINDS = (None, "int8", "nf4", "fp4")  # the position is the number in the file


def fingerprint(weight: Tensor, kind: str | None = None) -> Tensor:
    """Return the fingerprint of a weight, independent of its loaded dtype, of device and of threads.

    The weight is first rounded to bfloat16, so that one checkpoint gives one fingerprint in float64, float32 and
    bfloat16. The first 4 words are a hash of shape and content, the other 16 are sampled entries (bfloat16 bits).
    float16 cannot represent every bfloat16 number, so that float16 weights are compared by samples. The upper half of
    the first sample's word holds the quantisation, for messages only; comparisons ignore it.

    Args:
        weight: Weight of any shape and floating dtype; dequantised if it is stored in 8 or 4 bits.
        kind: Quantisation of the stored weight: ``int8``, ``nf4``, ``fp4`` or None.

    Returns:
        int32 tensor of 20 words on the CPU; never all zero.
    """
    flat = weight.detach().to(torch.bfloat16).cpu().contiguous().view(-1)
    flat = flat + 0.0  # -0.0 becomes 0.0
    digest = hashlib.blake2b(str(tuple(weight.shape)).encode(), digest_size=4 * HASH_WORDS)
    digest.update(flat.view(torch.uint8).numpy().data)
    words = torch.frombuffer(bytearray(digest.digest()), dtype=torch.int32)
    samples = flat[_positions(flat.numel())].view(torch.int16).to(torch.int32)
    if kind is not None:
        samples[0] = (samples[0] & 0xFFFF) | (_KINDS.index(kind) << 16)
    return torch.cat([words, samples])


def quantization_of(words: Tensor) -> str | None:
    """Return the quantisation in a fingerprint: ``int8``, ``nf4``, ``fp4``, or None for floating point."""
    number = int(words[HASH_WORDS]) >> 16
    return _KINDS[number] if 0 < number < len(_KINDS) else None


def fingerprints_match(saved: Tensor, own: Tensor, dtype: torch.dtype) -> bool:
    """Whether two fingerprints belong to one weight, in any loaded dtype (see :func:`fingerprint`).

    Args:
        saved: Fingerprint of the weight that an adapter was made for, int32 of 20 words.
        own: Fingerprint of the weight in the present model.
        dtype: Dtype of the weight in the present model.
    """
    saved, own = saved.cpu(), own.cpu()
    bits, own_bits = (words[HASH_WORDS:].to(torch.int16) for words in (saved, own))
    if torch.equal(saved[:HASH_WORDS], own[:HASH_WORDS]) and torch.equal(bits, own_bits):
        return True
    if dtype != torch.float16:
        return False
    expected, found = bits.view(torch.bfloat16).float(), own_bits.view(torch.bfloat16).float()
    # The tolerance is one step of bfloat16 for the double rounding, and the smallest step of float16 near zero.
    return bool(((expected - found).abs() <= expected.abs() * 2.0**-7 + 2.0**-24).all())


def fingerprint_text(words: Tensor) -> str:
    """Return the hash as 32 hexadecimal digits, for messages."""
    return "".join(f"{int(word) & 0xFFFFFFFF:08x}" for word in words[:HASH_WORDS])


def _positions(count: int) -> Tensor:
    return torch.linspace(0, count - 1, SAMPLES, dtype=torch.float64).round().to(torch.int64)

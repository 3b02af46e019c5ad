"""A short fingerprint of a base weight: saved with the adapter, compared when the adapter is loaded."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

HASH_WORDS = 4
SAMPLES = 16
LENGTH = HASH_WORDS + SAMPLES
_HELD = (None, "int8", "nf4", "fp4")  # by the number in the file


def fingerprint(weight: Tensor, held: str | None = None) -> Tensor:
    """Fingerprint of a weight that does not depend on the dtype it was loaded in, on device or threads.

    The weight is rounded to bfloat16 first, so that one checkpoint gives one fingerprint in float64, float32 and
    bfloat16. The first 4 words are a hash of shape and content, the other 16 are sampled entries (their bfloat16 bits):
    float16 cannot hold every bfloat16 number, so there the samples are compared instead of the hash. The upper half of
    the first sample's word tells how the weight is held, for messages; it takes no part in comparisons.

    Args:
        weight: Weight of any shape and floating dtype; dequantised, if it is held in 8 or 4 bits.
        held: ``int8``, ``nf4`` or ``fp4`` for such a weight.

    Returns:
        int32 tensor of 20 words on the CPU; never all zero.
    """
    flat = weight.detach().to(torch.bfloat16).cpu().contiguous().view(-1)
    flat = flat + 0.0  # -0.0 becomes 0.0
    digest = hashlib.blake2b(str(tuple(weight.shape)).encode(), digest_size=4 * HASH_WORDS)
    digest.update(flat.view(torch.uint8).numpy().data)
    words = torch.frombuffer(bytearray(digest.digest()), dtype=torch.int32)
    samples = flat[_positions(flat.numel())].view(torch.int16).to(torch.int32)
    if held is not None:
        samples[0] = (samples[0] & 0xFFFF) | (_HELD.index(held) << 16)
    return torch.cat([words, samples])


def held_as(words: Tensor) -> str | None:
    """How the weight of a fingerprint was held: ``int8``, ``nf4``, ``fp4``, or None for floating-point."""
    number = int(words[HASH_WORDS]) >> 16
    return _HELD[number] if 0 < number < len(_HELD) else None


def fingerprints_match(saved: Tensor, own: Tensor, dtype: torch.dtype) -> bool:
    """Whether two fingerprints are of one weight, whatever dtype it was loaded in (see :func:`fingerprint`).

    Args:
        saved: int32 tensor of 20 words, that of the weight that an adapter was made for.
        own: The same of the weight of the model that the adapter is loaded into,
        dtype: and the dtype of that weight.
    """
    saved, own = saved.cpu(), own.cpu()
    bits, own_bits = (words[HASH_WORDS:].to(torch.int16) for words in (saved, own))
    if torch.equal(saved[:HASH_WORDS], own[:HASH_WORDS]) and torch.equal(bits, own_bits):
        return True
    if dtype != torch.float16:
        return False
    expected, found = bits.view(torch.bfloat16).float(), own_bits.view(torch.bfloat16).float()
    # One step of bfloat16 for the double rounding, and the smallest step of float16 near zero.
    return bool(((expected - found).abs() <= expected.abs() * 2.0**-7 + 2.0**-24).all())


def fingerprint_text(words: Tensor) -> str:
    """The hash as 32 hexadecimal digits, for messages."""
    return "".join(f"{int(word) & 0xFFFFFFFF:08x}" for word in words[:HASH_WORDS])


def _positions(count: int) -> Tensor:
    return torch.linspace(0, count - 1, SAMPLES, dtype=torch.float64).round().to(torch.int64)

"""A short fingerprint of a base weight: saved with the adapter, compared when the adapter is loaded."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

HASH_WORDS = 4
SAMPLES = 16
LENGTH = HASH_WORDS + SAMPLES


def fingerprint(weight: Tensor) -> Tensor:
    """Fingerprint of a weight that does not depend on the dtype it was loaded in, on device or threads.

    The weight is rounded to bfloat16 first, so that one checkpoint gives one fingerprint in float64, float32 and
    bfloat16. The first 4 words are a hash of shape and content, the other 16 are sampled entries (their bfloat16 bits):
    float16 cannot hold every bfloat16 number, so there the samples are compared instead of the hash.

    Args:
        weight: Weight of any shape and floating dtype.

    Returns:
        int32 tensor of 20 words on the CPU; never all zero.
    """
    flat = weight.detach().to(torch.bfloat16).cpu().contiguous().view(-1)
    flat = flat + 0.0  # -0.0 becomes 0.0
    digest = hashlib.blake2b(str(tuple(weight.shape)).encode(), digest_size=4 * HASH_WORDS)
    digest.update(flat.view(torch.uint8).numpy().data)
    words = torch.frombuffer(bytearray(digest.digest()), dtype=torch.int32)
    return torch.cat([words, flat[_positions(flat.numel())].view(torch.int16).to(torch.int32)])


def fingerprints_match(saved: Tensor, weight: Tensor) -> bool:
    """Whether a weight is the one with this fingerprint (see :func:`fingerprint`), whatever dtype it was loaded in.

    Args:
        saved: int32 tensor of 20 words.
        weight: The weight of the model that the adapter is loaded into.
    """
    saved, own = saved.cpu(), fingerprint(weight)
    if torch.equal(saved, own):
        return True
    if weight.dtype != torch.float16:
        return False
    expected, found = (words[HASH_WORDS:].to(torch.int16).view(torch.bfloat16).float() for words in (saved, own))
    # One step of bfloat16 for the double rounding, and the smallest step of float16 near zero.
    return bool(((expected - found).abs() <= expected.abs() * 2.0**-7 + 2.0**-24).all())


def fingerprint_text(words: Tensor) -> str:
    """The hash as 32 hexadecimal digits, for messages."""
    return "".join(f"{int(word) & 0xFFFFFFFF:08x}" for word in words[:HASH_WORDS])


def _positions(count: int) -> Tensor:
    return torch.linspace(0, count - 1, SAMPLES, dtype=torch.float64).round().to(torch.int64)

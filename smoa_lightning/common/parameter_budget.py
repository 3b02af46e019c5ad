"""The notation of a parameter budget, and the settings that a budget decides; for adapters and studies."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_NUMBER = re.compile(r"(\d[\d_,]*(?:\.\d+)?(?:e\d+)?)\s*([kmb]?)", re.IGNORECASE)
MOST = 10**15

# The settings that a budget decides: the fields of ``adapters.size_settings``, listed here without its import of torch.
SIZES = frozenset(
    {
        "r", "init_r", "block_size", "oft_block_size", "boft_block_size", "n_frequency", "num_virtual_tokens",
        "encoder_hidden_size", "bottleneck_size", "displacement_rank", "decompose_factor", "sparse_rate", "sparsity",
        "effective_rank", "variant", "u", "theta_d_length", "num_vectors", "k1",
    }
)  # fmt: skip


def number_of_parameters(written: Any) -> int | None:
    """Return the number of parameters that a budget means; None if it is not a number from 1 to 10^15.

    >>> number_of_parameters("0.3M"), number_of_parameters(1_200), number_of_parameters("30o0k")
    (300000, 1200, None)
    """
    match = None if isinstance(written, bool) else _NUMBER.fullmatch(str(written).strip())
    if match is None:
        return None
    number = float(match[1].replace("_", "").replace(",", "")) * _UNITS[match[2].lower()]
    return round(number) if 1 <= number < MOST else None

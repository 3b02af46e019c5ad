"""The settings that make a strategy larger or smaller: their fields, their values, and the fields that follow them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from peft import PeftConfig
from peft.tuners.lokr.layer import factorization

from smoa_lightning.adapters.method_names import method_name
from smoa_lightning.common.errors import UserError

Shapes = Mapping[tuple[int, int], int]  # (d_out, d_in) -> number of adapted layers of this shape

OUT_OF_REACH = 10**18  # the estimate for a refused value
MOST_VIRTUAL_TOKENS = 1024  # with more tokens, rows do not fit into the context of small models


@dataclass(frozen=True)
class SizeSetting:
    """One setting of a strategy that changes its number of parameters.

    Attributes:
        field: The field of the config.
        candidates: (config, shapes) -> the values to try, from the fewest to the most parameters.
        dependents: (config, value) -> the fields that change with the value, so that the method stays the same.
        estimate: (config, value, shapes) -> the number of parameters up to a constant. None if the number never falls
            along the candidates.
    """

    field: str
    candidates: Callable[[Any, Shapes], Sequence[Any]]
    dependents: Callable[[Any, Any], dict[str, Any]] = lambda config, value: {}
    estimate: Callable[[Any, Any, Shapes], int] | None = None


# ------------------------------------------------------------------------------------------------------- candidates


def _smaller_side(shapes: Shapes) -> int:
    return max((min(shape) for shape in shapes), default=1)


def _ranks(config: Any, shapes: Shapes) -> range:
    """Every rank up to the largest that a layer can have."""
    return range(1, _smaller_side(shapes) + 1)


def _smoa_ranks(config: Any, shapes: Shapes) -> Sequence[int]:
    """At least 1 for each subspace if the subspaces share r; empty if ``branch_ranks`` decide all ranks."""
    if config.rank_split == "per_subspace":
        return range(0) if config.branch_ranks is not None else _ranks(config, shapes)
    ranks = range(config.num_subspaces, _smaller_side(shapes) + 1)
    return ranks if config.branch_ranks is None else [r for r in ranks if min(_branch_ranks(config, r)) > 0]


def _gralora_ranks(config: Any, shapes: Shapes) -> range:
    return range(config.gralora_k, _smaller_side(shapes) + 1, config.gralora_k)


def _adalora_ranks(config: Any, shapes: Shapes) -> range:
    """At least 2, so that a rank is left to cut."""
    return range(2, _smaller_side(shapes) + 1)


def _sizes(config: Any, shapes: Shapes) -> range:
    return range(1, max((max(shape) for shape in shapes), default=1) + 1)


def _frequencies(config: Any, shapes: Shapes) -> range:
    """Up to the number of entries of the smallest layer: peft refuses more."""
    return range(1, min((d_out * d_in for d_out, d_in in shapes), default=1) + 1)


def _hidden_sizes(config: Any, shapes: Shapes) -> range:
    return range(1, 8192 + 1)


def _tokens(config: Any, shapes: Shapes) -> range:
    return range(1, MOST_VIRTUAL_TOKENS + 1)


def _even_ranks(config: Any, shapes: Shapes) -> range:
    """HRA starts without effect only if reflections come in pairs."""
    return range(2, _smaller_side(shapes) + 1, 2)


class _Shares(Sequence[float]):
    """Shares s in fine steps, from ``first`` on up to 1, or 1 - s; made when they are read."""

    STEPS = 10**7

    def __init__(self, first: float, rest: bool = False) -> None:
        self.first, self.rest = max(1, math.ceil(first * self.STEPS)), rest

    def __len__(self) -> int:
        return self.STEPS - self.first

    def __getitem__(self, index: Any) -> Any:
        step = self.first + index
        return round((self.STEPS - step if self.rest else step) / self.STEPS, 7)


def _sparse_shares(config: Any, shapes: Shapes) -> _Shares:
    """Shares of trained entries that leave at least one in every layer."""
    return _Shares(1.01 / min((d_out * d_in for d_out, d_in in shapes), default=2), rest=True)


def _columns(config: Any, shapes: Shapes) -> list[int | None]:
    """The default, and every k_1 from the square root of the largest side down; fewer columns of U need more of V."""
    return [None, *range(math.isqrt(max((max(shape) for shape in shapes), default=1)), 0, -1)]


def _variants(config: Any, shapes: Shapes) -> list[str]:
    return ["road_1", "road_2", "road_4"]


def _any_length(config: Any, shapes: Shapes) -> range:
    return range(1, 10**8)


def _vectors(config: Any, shapes: Shapes) -> range:
    """At least topk, since every piece is a mixture of topk vectors."""
    return range(config.topk, 2**16)


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def _block_sizes(config: Any, shapes: Shapes) -> list[int | None]:
    """No blocks, or blocks of any size up to the larger side of the smallest layer."""
    largest = min((d_out if config.slot == "adapter" else max(d_out, d_in) for d_out, d_in in shapes), default=1)
    return [None, *range(largest, 0, -1)]


def _common_divisors(config: Any, shapes: Shapes) -> list[int]:
    """Block sizes that divide both sides of every layer; larger blocks have fewer parameters."""
    return _divisors(math.gcd(*(side for shape in shapes for side in shape)))[::-1]


def _input_divisors(config: Any, shapes: Shapes) -> list[int]:
    """Block sizes of at least 2 that divide every input size; larger blocks have more parameters."""
    return _divisors(math.gcd(*(d_in for _, d_in in shapes)))[1:]


def _boft_sizes(config: Any, shapes: Shapes) -> list[int]:
    """Even block sizes whose product with 2^(factors - 1) divides every input size."""
    common, together = math.gcd(*(d_in for _, d_in in shapes)), 2 ** (config.boft_n_butterfly_factor - 1)
    return [size for size in _divisors(common) if size % 2 == 0 and common % (size * together) == 0]


def _lokr_factors(config: Any, shapes: Shapes) -> list[int]:
    """The default, -1 (near the square root), and all divisors of a common side."""
    return [-1, *_divisors(math.gcd(*(side for shape in shapes for side in shape)))]


# ------------------------------------------------------------------------------------------------------- dependents


def _alpha(name: str, rank: str = "r") -> Callable[[Any, int], dict[str, Any]]:
    """Change the field ``name`` with the rank, so that the scale of the update does not change.

    The scale is alpha / r, or alpha / sqrt(r) with rsLoRA. An integer field stays an integer of at least 1.
    """

    def follow(config: Any, value: int) -> dict[str, Any]:
        alpha = getattr(config, name, None)
        if alpha is None or isinstance(alpha, bool):
            return {}
        ratio = value / getattr(config, rank)
        scaled = alpha * (math.sqrt(ratio) if getattr(config, "use_rslora", False) else ratio)
        return {name: max(1, round(scaled)) if isinstance(alpha, int) else scaled}

    return follow


def _branch_ranks(config: Any, value: int) -> list[int]:
    """The configured shares of r, rounded so that they sum to r."""
    ends = [round(sum(config.branch_ranks[:k]) * value / config.r) for k in range(config.num_subspaces + 1)]
    return [end - start for start, end in pairwise(ends)]


def _smoa(config: Any, value: int) -> dict[str, Any]:
    """``alpha`` as in LoRA; ``branch_ranks`` keep their shares."""
    changes = _alpha("alpha")(config, value)
    return changes if config.branch_ranks is None else {**changes, "branch_ranks": _branch_ranks(config, value)}


def _adalora(config: Any, value: int) -> dict[str, Any]:
    """``target_r`` keeps its share of ``init_r``, and stays below it."""
    target = round(config.target_r * value / config.init_r)
    return {"target_r": min(max(target, 1), value - 1), **_alpha("lora_alpha", "init_r")(config, value)}


def _gralora(config: Any, value: int) -> dict[str, Any]:
    """The scale is alpha / (r + hybrid_r)."""
    ratio = (value + config.hybrid_r) / (config.r + config.hybrid_r)
    return {"alpha": max(1, round(config.alpha * ratio))}


# -------------------------------------------------------------------------------------------------------- estimates


def _randlora(config: Any, value: int, shapes: Shapes) -> int:
    """n = ceil(min / r) bases of full rank together: lambda (r, n) and gamma (n, min) in every layer."""
    return sum(n * -(-min(shape) // value) * (value + min(shape)) for shape, n in shapes.items())


def _lokr(config: Any, r: int, factor: int, shapes: Shapes) -> int:
    """The two Kronecker factors, each dense or of rank r, depending on its size."""
    total = 0
    for (d_out, d_in), count in shapes.items():
        (in_m, in_n), (out_l, out_k) = factorization(d_in, factor), factorization(d_out, factor)
        low = config.decompose_both and r < max(out_l, in_m) / 2
        total += count * (r * (out_l + in_m) if low else out_l * in_m)
        total += count * (r * (out_k + in_n) if r < max(out_k, in_n) / 2 else out_k * in_n)
    return total


def _kradapter(config: Any, k1: int | None, shapes: Shapes) -> int:
    """U (m x k_1) and V (m x ceil(N / k_1)) in every layer."""
    changed = dataclasses.replace(config, k1=k1)
    return sum(n * min(shape) * sum(changed.columns(*shape)) for shape, n in shapes.items())


def _c3a(config: Any, block: int, shapes: Shapes) -> int:
    """One kernel of b entries for each block of b x b."""
    return sum(n * d_out * d_in // block for (d_out, d_in), n in shapes.items())


def _oft(config: Any, block: int, shapes: Shapes) -> int:
    """A skew-symmetric matrix of b (b - 1) / 2 entries for each block of the input, or one for all blocks."""
    return sum(
        n * (1 if config.block_share else d_in // block) * block * (block - 1) // 2 for (_, d_in), n in shapes.items()
    )


def _surm(config: Any, shapes: Shapes, **changes: Any) -> int:
    """The two factors of every layer, from the config; ``OUT_OF_REACH`` if the config refuses its settings."""
    config = dataclasses.replace(config, **changes)
    total = 0
    try:
        for (d_out, d_in), count in shapes.items():
            # in the adapter slot the structure has the size of the module's output on both sides
            d_in = d_out if config.slot == "adapter" else d_in
            config.check_layer("", d_out, d_in)
            total += count * sum(math.prod(factor) for factor in config.shapes(d_out, d_in))
    except UserError:
        return OUT_OF_REACH
    return total


# ------------------------------------------------------------------------------------------------------------ table

_RANK = SizeSetting("r", _ranks)
_LORA = SizeSetting("r", _ranks, _alpha("lora_alpha"))
_TOKENS = SizeSetting("num_virtual_tokens", _tokens)
_HIDDEN = SizeSetting("encoder_hidden_size", _hidden_sizes)

SIZE_SETTINGS: dict[str, tuple[SizeSetting, ...]] = {
    "SMOA": (SizeSetting("r", _smoa_ranks, _smoa),),
    "LORA": (_LORA,),
    "HIRA": (_RANK,),
    "ADALORA": (SizeSetting("init_r", _adalora_ranks, _adalora),),
    "LOHA": (SizeSetting("r", _ranks, _alpha("alpha")),),
    "LOKR": (
        SizeSetting("r", _ranks, _alpha("alpha"), lambda c, v, shapes: _lokr(c, v, c.decompose_factor, shapes)),
        SizeSetting("decompose_factor", _lokr_factors, estimate=lambda c, v, shapes: _lokr(c, c.r, v, shapes)),
    ),
    "C3A": (SizeSetting("block_size", _common_divisors, estimate=_c3a),),
    "VERA": (SizeSetting("r", _sizes),),
    "RANDLORA": (SizeSetting("r", lambda c, shapes: _ranks(c, shapes)[::-1], _alpha("randlora_alpha"), _randlora),),
    "GRALORA": (SizeSetting("r", _gralora_ranks, _gralora),),
    "OFT": (SizeSetting("oft_block_size", _input_divisors, lambda config, value: {"r": 0}, _oft),),
    "BOFT": (SizeSetting("boft_block_size", _boft_sizes, lambda config, value: {"boft_block_num": 0}),),
    "FOURIERFT": (SizeSetting("n_frequency", _frequencies),),
    "FROD": (SizeSetting("sparse_rate", lambda c, shapes: _Shares(0)),),
    "SHIRA": (_RANK,),
    "MISS": (_RANK,),
    "DELORA": (_RANK,),
    "PSOFT": (SizeSetting("r", _ranks, _alpha("psoft_alpha")),),
    "OSF": (SizeSetting("effective_rank", lambda c, shapes: _Shares(0, rest=True)),),
    "HRA": (SizeSetting("r", _even_ranks),),
    "WAVEFT": (SizeSetting("n_frequency", _frequencies),),
    "ROAD": (SizeSetting("variant", _variants),),
    "PEANUT": (_RANK,),
    "GLORA": (_RANK,),
    "DEFT": (SizeSetting("r", _ranks, _alpha("alpha")),),
    "TINYLORA": (SizeSetting("u", _any_length),),
    "UNILORA": (SizeSetting("theta_d_length", _any_length),),
    "VBLORA": (SizeSetting("num_vectors", _vectors),),
    "SHADOW": (SizeSetting("r", _hidden_sizes),),
    "PROMPT_TUNING": (_TOKENS,),
    "PREFIX_TUNING": (_TOKENS,),
    "P_TUNING": (_HIDDEN, _TOKENS),
    "IA3": (),
    "LN_TUNING": (),
    "SURM": (SizeSetting("block_size", _block_sizes, estimate=lambda c, v, shapes: _surm(c, shapes, block_size=v)),),
    "MORA": (SizeSetting("r", _ranks, _alpha("alpha")),),
    "BOTTLENECK": (SizeSetting("bottleneck_size", _sizes),),
    "HYPERADAPT": (),
    "ABBA": (_RANK,),
    "KRADAPTER": (SizeSetting("k1", _columns, estimate=_kradapter),),
}


def size_settings_of(config: PeftConfig) -> tuple[SizeSetting, ...]:
    """Return the size settings of a strategy in the order to try them; empty for a method of one size.

    For a method that is not in the table, the size setting is its field ``r`` or ``num_virtual_tokens``, if any.
    """
    settings: Any = config
    name = method_name(config)
    if name == "SURM" and settings.structure == "ldr":
        terms = lambda c, v, shapes: _surm(c, shapes, displacement_rank=v)  # noqa: E731
        return (SizeSetting("displacement_rank", _ranks, estimate=terms), *SIZE_SETTINGS[name])
    if name == "SUPERTUNING":  # with r it trains a LoRA beside the sparse entries
        return (_LORA,) if settings.r else (SizeSetting("sparsity", _sparse_shares),)
    if name == "PREFIX_TUNING" and settings.prefix_projection:
        return (_HIDDEN, _TOKENS)
    if name in SIZE_SETTINGS:
        return SIZE_SETTINGS[name]
    if isinstance(getattr(config, "r", None), int) and settings.r > 0:
        return (SizeSetting("r", _ranks, _alpha("alpha")),)
    return (_TOKENS,) if hasattr(config, "num_virtual_tokens") else ()

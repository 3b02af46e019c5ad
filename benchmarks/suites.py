"""The strategies of the comparison scripts: overlay, further settings, candidate learning rates."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Strategy:
    """One row of a table.

    Args:
        overlay: Name of a file in ``experiments/adapters``.
        rates: Candidate learning rates, near those of its source and of trials; the same number for every strategy.
        settings: Further settings of the adapter, as ``{"r": "5"}``.
    """

    overlay: str
    rates: tuple[float, ...]
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def flags(self) -> list[str]:
        """The settings as flags of the command line."""
        return [part for name, value in self.settings.items() for part in (f"--model.adapter.{name}", value)]


# Rank 32 on q, k, v, up and down: the setting of the SMoA papers.
RANK_32 = {
    "smoa_blocks": Strategy("smoa_blocks", (5e-3, 1e-2, 2e-2, 4e-2)),
    "smoa_energy": Strategy("smoa_energy", (5e-3, 1e-2, 2e-2, 4e-2)),
    "hira": Strategy("hira", (2.5e-3, 5e-3, 1e-2, 2e-2)),
    "lora": Strategy("lora", (2.5e-4, 5e-4, 1e-3, 2e-3)),
}

# 288,000 trainable parameters on q and v of SmolLM2-135M (LoRA of rank 5), or the nearest size of a method.
_QV = {"target_modules": '["q_proj","v_proj"]'}
EQUAL_BUDGET = {
    "lora": Strategy("lora", (1e-3, 4e-3, 1.6e-2), _QV | {"r": "5", "lora_alpha": "5"}),
    "smoa_blocks": Strategy("smoa_blocks", (1e-2, 4e-2, 1.6e-1), _QV | {"r": "10"}),
    "smoa_energy": Strategy("smoa_energy", (1e-2, 4e-2, 1.6e-1), _QV | {"r": "5"}),
    "hira": Strategy("hira", (1e-2, 4e-2, 1.6e-1), _QV | {"r": "5"}),
    "surm_circulant": Strategy("surm_circulant", (5e-3, 2e-2, 8e-2), _QV | {"block_size": "100"}),
    "surm_kronecker": Strategy("surm_kronecker", (2e-3, 8e-3, 3.2e-2), _QV | {"block_size": "100"}),
    "surm_ldr": Strategy("surm_ldr", (5e-3, 2e-2, 8e-2), _QV | {"displacement_rank": "4"}),
    "c3a": Strategy("c3a", (1e-2, 4e-2, 1.6e-1), _QV | {"block_size": "48"}),
    "mora": Strategy("mora", (1e-3, 4e-3, 1.6e-2), _QV | {"r": "5"}),
    "hyperadapt": Strategy("hyperadapt", (1e-3, 4e-3, 1.6e-2), _QV),
    "surm_adapter": Strategy("surm_adapter", (5e-3, 2e-2, 8e-2), {"structure": "ldr", "displacement_rank": "4"}),
    "bottleneck": Strategy("bottleneck", (1e-3, 4e-3, 1.6e-2), {"bottleneck_size": "4"}),
}

SUITES = {"rank_32": RANK_32, "equal_budget": EQUAL_BUDGET}

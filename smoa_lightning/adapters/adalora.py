"""AdaLoRA in training: the steps that peft leaves to the training loop (arXiv 2303.10512).

The update of a layer is (alpha / r) B diag(e) A with A (r, d_in), B (d_out, r) and e (r), all trained. In addition to
the gradient of the loss:

* A penalty keeps A and B near orthogonality.
* Each optimizer step updates the importance of every triplet (row of A, entry of e, column of B).
* Between ``tinit`` and ``tfinal`` the least important entries of e are set to zero, until the mean over layers is
  ``target_r`` entries.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, cast

import peft
import torch
from peft import PeftModel
from peft.tuners.adalora import AdaLoraModel
from peft.tuners.adalora.layer import AdaLoraLayer
from torch import Tensor

from smoa_lightning.common.errors import UserError


@dataclass
class AdaLoraConfig(peft.AdaLoraConfig):
    """``peft.AdaLoraConfig`` whose schedule follows the length of the run.

    Args:
        total_step: Optimizer steps of the run; ``null`` takes the number from the run.
        tinit: Steps before the first cut: a number of steps if at least 1, else a share of all steps.
        tfinal: Steps with the final ranks at the end: a number of steps if at least 1, else a share of all steps.
    """

    r: int = field(default=8, init=False)  # LoRA's; AdaLoRA has init_r and target_r
    tinit: float = 0.0  # type: ignore[assignment]
    tfinal: float = 0.0  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Let peft check all settings, except a schedule of unknown length."""
        total_step = self.total_step
        self.total_step = sys.maxsize if total_step is None else total_step
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.total_step = total_step


def schedule(total_step: int | None, tinit: float, tfinal: float, total: int) -> tuple[int, int]:
    """Return ``tinit`` and ``tfinal`` in steps of a run of ``total`` optimizer steps.

    Raises:
        UserError: ``total_step`` is set to a different number, or no step is left to cut ranks.

    >>> schedule(None, 0.1, 30, total=100)
    (10, 30)
    """
    if total_step not in (None, total):
        raise UserError(
            f"AdaLoRA's total_step is {total_step}, but the run has {total} optimizer steps: set it to {total}, or use "
            "smoa_lightning.adapters.adalora.AdaLoraConfig without total_step"
        )
    first, last = (int(value if value >= 1 else value * total) for value in (tinit, tfinal))
    if min(tinit, tfinal) < 0 or first >= total - last:
        raise UserError(
            f"AdaLoRA's tinit {tinit} and tfinal {tfinal} leave no step to cut ranks in a run of {total} steps: lower "
            "them, or give both as a share of the steps, such as 0.1 and 0.5"
        )
    return first, last


class RankAllocation:
    """The part of AdaLoRA in the training loop.

    Steps are counted from 1: ``tinit`` steps pass before the first cut, and exactly ``tfinal`` steps follow the last
    cut.

    Args:
        model: A model with a trainable AdaLoRA adapter.

    Raises:
        UserError: ``target_r`` is not between 1 and ``init_r`` - 1.
    """

    def __init__(self, model: PeftModel) -> None:
        self.tuner = cast(AdaLoraModel, model.base_model)
        self.adapter: str = self.tuner.trainable_adapter_name
        self.config = cast(peft.AdaLoraConfig, self.tuner.peft_config[self.adapter])
        self.last_cut = 0  # after this step the ranks are final
        self.configured = (self.config.total_step, self.config.tinit, self.config.tfinal)
        if not 0 < self.config.target_r < self.config.init_r:
            raise UserError(
                f"AdaLoRA cuts its ranks from init_r to target_r, which are {self.config.init_r} and "
                f"{self.config.target_r}: choose target_r between 1 and {max(1, self.config.init_r - 1)}"
            )
        self.layers = [m for m in self.tuner.modules() if isinstance(m, AdaLoraLayer) and self.adapter in m.lora_A]

    def start(self, total: int) -> None:
        """Fit the schedule to a run of ``total`` optimizer steps.

        Raises:
            UserError: As :func:`schedule`.
        """
        self.config.tinit, self.config.tfinal = schedule(*self.configured, total)
        self.config.total_step = total
        self.last_cut = total - self.config.tfinal

    def penalty(self) -> Tensor:
        """Return the mean over all A and B of ||A A^T - I||_F and ||B^T B - I||_F, a scalar with gradients."""
        grams = []
        for layer in self.layers:
            a, b = cast(Tensor, layer.lora_A[self.adapter]), cast(Tensor, layer.lora_B[self.adapter])
            grams += [a @ a.T, b.T @ b]
        distances = [torch.linalg.matrix_norm(g - torch.eye(len(g), dtype=g.dtype, device=g.device)) for g in grams]
        return torch.stack(distances).mean()

    def add_penalty_gradients(self) -> float:
        """Add ``orth_reg_weight`` times the gradient of the penalty to the gradients; return the penalty.

        The penalty depends on the parameters only. So it is added once a step and is the same in every process.
        """
        factors: list[Any] = [p[self.adapter] for layer in self.layers for p in (layer.lora_A, layer.lora_B)]
        with torch.enable_grad():
            penalty = self.penalty()
            gradients = torch.autograd.grad(penalty * self.config.orth_reg_weight, factors)
        for factor, gradient in zip(factors, gradients, strict=True):
            factor.grad = gradient if factor.grad is None else factor.grad.add_(gradient)
        return float(penalty.detach())

    def after_step(self, step: int) -> None:
        """Update the importances and cut the ranks; must run before the gradients of the step are cleared.

        The config's ``rank_pattern`` always matches the weights. It is None before the last cut, because the method
        lets zeroed entries grow again: a saved adapter then holds all ``init_r`` directions.

        Args:
            step: Number of finished optimizer steps, this step included.
        """
        if step <= self.last_cut:
            self.config.rank_pattern = None
        if step == self.last_cut and not self.tuner.rankallocator.ipt:
            self.tuner.rankallocator.update_ipt(self.tuner.model)  # a cut in the first step: peft has no scores yet
        self.tuner.update_and_allocate(step)

    def mean_rank(self) -> float:
        """Return the mean over layers of the number of nonzero entries of e."""
        return sum(int(layer.lora_E[self.adapter].count_nonzero()) for layer in self.layers) / len(self.layers)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs with the weights: importances, uncertainties, rank pattern."""
        allocator = self.tuner.rankallocator
        return {
            "ipt": dict(allocator.ipt),
            "exp_avg_ipt": dict(allocator.exp_avg_ipt),
            "exp_avg_unc": dict(allocator.exp_avg_unc),
            "rank_pattern": self.config.rank_pattern,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of :meth:`state_dict`."""
        devices = {name: p.device for name, p in self.tuner.model.named_parameters()}
        for key in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            setattr(self.tuner.rankallocator, key, {n: t.to(devices[n]) for n, t in state[key].items()})
        self.config.rank_pattern = state["rank_pattern"]

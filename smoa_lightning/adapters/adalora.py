"""AdaLoRA in training: what peft leaves to the training loop (arXiv 2303.10512).

The update of a layer is (alpha / r) B diag(e) A with A (r, d_in), B (d_out, r) and e (r), all trained. Three things
happen beside the gradient of the loss: a penalty keeps A and B near orthogonality, after each optimizer step the
importance of every triplet (row of A, entry of e, column of B) is updated, and between ``tinit`` and ``tfinal`` the
least important entries of e are set to zero, until ``target_r`` a layer are left on average.
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
        total_step: Optimizer steps of the run; ``null`` takes the run's own number.
        tinit: Steps before the first cut: a number of steps from 1 on, a share of all steps below 1.
        tfinal: Steps with the final ranks at the end: a number of steps from 1 on, a share of all steps below 1.
    """

    r: int = field(default=8, init=False)  # LoRA's; AdaLoRA has init_r and target_r
    tinit: float = 0.0  # type: ignore[assignment]
    tfinal: float = 0.0  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Let peft check everything but a schedule whose length is not known yet."""
        given = self.total_step
        self.total_step = sys.maxsize if given is None else given
        super().__post_init__()
        self.total_step = given


def schedule(total_step: int | None, tinit: float, tfinal: float, total: int) -> tuple[int, int]:
    """Return ``tinit`` and ``tfinal`` in steps of a run of ``total`` optimizer steps.

    Raises:
        UserError: ``total_step`` is set to another number, or no step is left in which ranks could be cut.

    >>> schedule(None, 0.1, 30, total=100)
    (10, 30)
    """
    if total_step not in (None, total):
        raise UserError(
            f"AdaLoRA's total_step is {total_step}, but the run makes {total} optimizer steps: set it to {total}, or "
            "leave it out with smoa_lightning.adapters.adalora.AdaLoraConfig"
        )
    first, last = (int(value if value >= 1 else value * total) for value in (tinit, tfinal))
    if min(tinit, tfinal) < 0 or first >= total - last:
        raise UserError(
            f"AdaLoRA's tinit {tinit} and tfinal {tfinal} leave no step to cut ranks in a run of {total} steps: lower "
            "them, or give both as a share of the steps, such as 0.1 and 0.5"
        )
    return first, last


class RankAllocation:
    """The part of AdaLoRA that the training loop has to do.

    Steps are counted from 1, so that ``tinit`` steps pass before the first cut and exactly ``tfinal`` follow the last.

    Args:
        model: A model with a trainable AdaLoRA adapter.

    Raises:
        UserError: ``target_r`` is not below ``init_r``, so that there is nothing to allocate.
    """

    def __init__(self, model: PeftModel) -> None:
        self.tuner = cast(AdaLoraModel, model.base_model)
        self.adapter: str = self.tuner.trainable_adapter_name
        self.config = cast(peft.AdaLoraConfig, self.tuner.peft_config[self.adapter])
        self.last_cut = 0  # the step after which the ranks stay
        self.given = (self.config.total_step, self.config.tinit, self.config.tfinal)
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
        self.config.tinit, self.config.tfinal = schedule(*self.given, total)
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

        It depends on the parameters alone, so it is added once a step, and is the same in every process.
        """
        factors: list[Any] = [p[self.adapter] for layer in self.layers for p in (layer.lora_A, layer.lora_B)]
        with torch.enable_grad():
            penalty = self.penalty()
            gradients = torch.autograd.grad(penalty * self.config.orth_reg_weight, factors)
        for factor, gradient in zip(factors, gradients, strict=True):
            factor.grad = gradient if factor.grad is None else factor.grad.add_(gradient)
        return float(penalty.detach())

    def after_step(self, step: int) -> None:
        """Update the importances and cut the ranks; to be called while the gradients of the step are still there.

        The config's ``rank_pattern`` always tells what the weights hold. Between two cuts a zeroed entry may grow back,
        as the method wants it; then there is none, and a saved adapter holds all ``init_r`` directions.

        Args:
            step: Number of optimizer steps done, the one just made included.
        """
        if step <= self.last_cut:
            self.config.rank_pattern = None
        if step == self.last_cut and not self.tuner.rankallocator.ipt:
            self.tuner.rankallocator.update_ipt(self.tuner.model)  # the first step is the last cut: peft has no scores
        self.tuner.update_and_allocate(step)

    def mean_rank(self) -> float:
        """Return the mean number of entries of e that are not zero, a layer."""
        return sum(int(layer.lora_E[self.adapter].count_nonzero()) for layer in self.layers) / len(self.layers)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs beside the weights: importances, uncertainties and the rank pattern."""
        allocator = self.tuner.rankallocator
        return {
            "ipt": dict(allocator.ipt),
            "exp_avg_ipt": dict(allocator.exp_avg_ipt),
            "exp_avg_unc": dict(allocator.exp_avg_unc),
            "rank_pattern": self.config.rank_pattern,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        devices = {name: p.device for name, p in self.tuner.model.named_parameters()}
        for key in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            setattr(self.tuner.rankallocator, key, {n: t.to(devices[n]) for n, t in state[key].items()})
        self.config.rank_pattern = state["rank_pattern"]

"""The loss scaler of the precision 16-mixed: when its steps without finite gradients are normal."""

from __future__ import annotations

import logging

import lightning as L
import torch

SMALLEST_SCALE = 1.0  # a smaller one would make gradients vanish: then the gradients themselves are not finite
logger = logging.getLogger(__name__)


def scaler_decides(trainer: L.Trainer, optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a loss scaler leaves out this step, whose gradients are not finite, and can lower its scale.

    float16 gradients overflow while the scale is too high. The scaler then leaves out the step and halves its scale.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not scaler.is_enabled() or scaler.get_scale() <= SMALLEST_SCALE:
        return False
    if not any(float(found) for found in scaler._found_inf_per_device(optimizer).values()):
        return False  # the scaler would make this step
    logger.debug(
        "step %d is left out: the gradients overflow at loss scale %g", trainer.global_step + 1, scaler.get_scale()
    )
    return True

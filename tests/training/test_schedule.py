"""The schedule by step against transformers' own."""

from __future__ import annotations

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from smoa_lightning.training.schedule import Decay, warmup_decay, warmup_steps

THEIRS = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}


@pytest.mark.parametrize("decay", THEIRS)
@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (3, 10), (0.25, 12), (9, 10), (0, 1)])
def test_decay_equals_transformers(warmup: float, total: int, decay: Decay) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = THEIRS[decay](optimizer, warmup_steps(warmup, total), total)
    for step in range(total):
        if step >= warmup_steps(warmup, total):  # theirs wastes step 0 on a rate of zero; ours does not
            assert warmup_decay(step, warmup, total, decay) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("decay", THEIRS)
def test_no_step_is_wasted_and_warmup_rises(decay: Decay) -> None:
    rates = [warmup_decay(s, 4, 20, decay) for s in range(20)]
    assert min(rates) > 0
    assert rates[:5] == sorted(rates[:5])
    assert rates[4] == 1.0


def test_constant_stays_at_the_base_rate() -> None:
    assert [warmup_decay(s, 0, 5, "constant") for s in range(5)] == [1.0] * 5

"""Distillation: a term of the loss that draws a student's distributions to those of a teacher.

With w = ``weight``, T = ``temperature``, the teacher's logits a and the student's logits b at n positions, the loss is

    L = 1/n sum_i [ (1 - w) CE(y_i, softmax(b_i)) + w T^2 KL(softmax(a_i / T) || softmax(b_i / T)) ]

as in arXiv 1503.02531. T^2 keeps the size of the gradient of the second term for any T. A position without a target
has no first term.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from smoa_lightning.configuration.ranges import check_value
from smoa_lightning.data.encoding.items import IGNORED
from smoa_lightning.objectives.top_distributions import TopDistributions, top_divergences

TOP = 64  # probabilities in a cache, if no number is set
PIECE = 2**24  # logits of a model that are in float32 at a time: 64 MB for each tensor


@dataclass
class DistillationConfig:
    """The teacher of a run, and how much of the loss it decides.

    Args:
        teacher: The folder of a run or of an adapter of this package (with its own backbone), the folder of a model of
            transformers, or a model on the hub, ``owner/name`` or ``owner/name@revision``. Its tokenizer must be that
            of the backbone.
        weight: Share w of the teacher's term in the loss; 1 - w is the share of the targets.
        temperature: T, which divides the logits of both models in the teacher's term. Regression has none: there it
            must be 1.
        positions: Which positions count. ``response``: those with a target. ``all``: every token but the first of a
            row, for language models only.
        score: Whether report and selection rows are scored by the KL to the teacher at T = 1, as ``kl``. Then ``test``
            needs the teacher too.
        cache_folder: Folder of the teacher's distributions of the training rows. They are computed once before
            training, and runs that find all of them there do not load the teacher; ``null`` computes them with each
            batch.
        cache_top: k, the number of largest probabilities that are saved; the others count as one token. ``null`` means
            64.
    """

    teacher: str
    weight: float = 0.5
    temperature: float = 1.0
    positions: Literal["response", "all"] = "response"
    score: bool = False
    cache_folder: str | None = None
    cache_top: int | None = None

    @property
    def top(self) -> int:
        """k, the number of largest probabilities in a cache."""
        return self.cache_top or TOP

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UserError: A number is out of its range.
        """
        for name in ("weight", "temperature", "cache_top"):
            check_value(f"model.distillation.{name}", getattr(self, name))


class DistilledLoss(NamedTuple):
    """The loss of a batch.

    loss: The sum over its positions of (1 - w) CE + w T^2 KL, or of squared errors, with a gradient.
    positions: n, their number.
    terms: Name -> the sum of a term over the positions, unweighted and without a gradient.
    """

    loss: Tensor
    positions: int
    terms: Mapping[str, Tensor]


def divergences(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(p || q) = sum_v p_v log(p_v / q_v) of each position in nats, (positions,) in float32.

    p = softmax(teacher / T) and q = softmax(student / T). If one model pads its vocabulary to more columns, both
    distributions are over the columns that both have.

    Args:
        student: (positions, vocabulary) logits.
        teacher: (positions, vocabulary) logits.
        temperature: T.
    """
    columns = min(student.shape[-1], teacher.shape[-1])
    log_p, log_q = (F.log_softmax(logits[:, :columns].float() / temperature, dim=-1) for logits in (teacher, student))
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)


def item_divergences(student: Tensor, teacher: Tensor, items: Tensor, count: int) -> list[dict[str, float]]:
    """Return ``kl``, the sum over the positions of an item of KL(p || q) at T = 1, and ``kl_positions``, their number.

    Args:
        student: (positions, vocabulary) logits.
        teacher: (positions, vocabulary) logits.
        items: (positions,) the item of each position, from 0 to ``count`` - 1.
        count: The number of items.
    """
    rows = max(1, PIECE // max(student.shape[-1], 1))
    each = torch.cat([divergences(*piece) for piece in zip(student.split(rows), teacher.split(rows), strict=True)])
    sums = torch.zeros(count, dtype=torch.float64, device=each.device if each.device.type != "mps" else "cpu")
    sums.index_add_(0, items.to(sums.device), each.to(sums))
    numbers = torch.bincount(items, minlength=count)
    return [{"kl": kl, "kl_positions": n} for kl, n in zip(sums.tolist(), numbers.tolist(), strict=True)]


def distilled_loss(
    student: Tensor, teacher: Tensor | TopDistributions, labels: Tensor, settings: DistillationConfig
) -> DistilledLoss:
    """Return the loss of distributions over classes or tokens.

    The logits go through float32 in pieces, and the pieces are computed again for the gradient. So no more than
    ``PIECE`` of them are in float32 at a time.

    Args:
        student: (positions, vocabulary) logits with a gradient.
        teacher: (positions, vocabulary) logits without one, or the distributions of a cache, made with the same T.
        labels: (positions,) the targets; -100 at a position without one, which has no cross-entropy.
        settings: Weight and temperature.
    """

    def sums(student: Tensor, teacher: Tensor | TopDistributions, labels: Tensor) -> Tensor:
        entropy = F.cross_entropy(student.float(), labels, ignore_index=IGNORED, reduction="sum")
        whole = isinstance(teacher, Tensor)
        kl = (divergences if whole else top_divergences)(student, teacher, settings.temperature)  # type: ignore[arg-type]
        return torch.stack([entropy, kl.sum()])

    rows = max(1, PIECE // max(student.shape[-1], 1))
    pieces = zip(student.split(rows), teacher.split(rows), labels.split(rows), strict=True)
    ce, kl = sum(
        (checkpoint(sums, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces),
        start=torch.zeros(2, device=student.device),
    )
    loss = (1 - settings.weight) * ce + settings.weight * settings.temperature**2 * kl
    return DistilledLoss(loss, len(labels), {"ce": ce.detach(), "kl": kl.detach()})

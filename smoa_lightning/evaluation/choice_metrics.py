"""torchmetrics metrics over the scores. Their states are sums and counts, so that they are right with DDP."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from smoa_lightning.evaluation.scoring import ChoiceScores
from smoa_lightning.records.metric_table import ACCURACIES, COUNT


def accuracy_stderr(accuracy: Tensor, count: Tensor) -> Tensor:
    """Return the standard error of a mean of n zeros and ones, sqrt(p (1 - p) / (n - 1)), as in lm-evaluation-harness.

    >>> round(accuracy_stderr(torch.tensor(0.5), torch.tensor(101.0)).item(), 4)
    0.05
    """
    return torch.sqrt(accuracy * (1 - accuracy) / (count - 1).clamp(min=1))


class ChoiceAccuracy(Metric):
    """Share of items where the labelled choice is the best, with three normalisations and standard errors.

    ``acc`` compares summed log-likelihoods, ``acc_norm`` log-likelihood per UTF-8 byte, ``acc_token`` per token.
    Ties go to the first choice, as in numpy's argmax. ``nll`` is the negative log-likelihood per token of the labelled
    choice, averaged over the items. It separates settings on fewer items than an accuracy, a mean of zeros and ones.
    """

    full_state_update = False
    higher_is_better = True
    correct: Tensor
    total: Tensor
    nll: Tensor
    nll_squares: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", torch.zeros(len(ACCURACIES), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("nll", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("nll_squares", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, scores: ChoiceScores, label: Tensor) -> None:
        """Count the items of one batch.

        Args:
            scores: Each field (items, choices).
            label: (items,) index of the right choice.
        """
        # Not in place: a state that was reset in inference mode cannot be changed in place outside of it.
        self.correct = self.correct + torch.stack([(field.argmax(dim=1) == label).sum() for field in scores])
        nll = -scores.per_token.gather(1, label[:, None])
        self.nll, self.nll_squares = self.nll + nll.sum(), self.nll_squares + nll.square().sum()
        self.total = self.total + label.numel()

    def compute(self) -> dict[str, Tensor]:
        """Return the accuracies, ``nll``, their standard errors as ``<name>_stderr``, and ``num_items``."""
        count, mean = self.total.clamp(min=1), self.nll / self.total.clamp(min=1)
        variance = (self.nll_squares / count - mean.square()).clamp(min=0) / (count - 1).clamp(min=1)
        values: dict[str, Tensor] = {COUNT: self.total, "nll": mean, "nll_stderr": variance.sqrt()}
        for name, correct in zip(ACCURACIES, self.correct, strict=True):
            accuracy = correct / self.total.clamp(min=1)
            values[name] = accuracy.float()
            values[f"{name}_stderr"] = accuracy_stderr(accuracy, self.total).float()
        return values

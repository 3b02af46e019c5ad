"""How far the size of a strategy may be from its budget."""

from __future__ import annotations

from smoa_lightning.adapters.budget import BudgetFit
from smoa_lightning.common.errors import UserError

FARTHEST = 2  # without a tolerance: between half and twice the budget


def check_tolerance(fit: BudgetFit, tolerance: float | None) -> None:
    """Refuse a size that is too far from its budget.

    Args:
        fit: The nearest size.
        tolerance: ``model.budget_tolerance``: the largest relative difference. None allows half and twice the budget.

    Raises:
        UserError: The message has the nearest size and its difference.
    """
    if tolerance is not None and abs(fit.relative_error) > tolerance:
        raise UserError(f"{fit.line()}; the largest allowed difference is {tolerance:.1%} (model.budget_tolerance)")
    if tolerance is None and not 1 / FARTHEST <= fit.parameters / fit.target <= FARTHEST:
        raise UserError(f"{fit.line()}; this is not near the budget: the nearest budget is {fit.parameters:,}")

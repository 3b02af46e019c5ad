"""The adapter slot: a small residual map after a module, as bottleneck adapters have it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from smoa_lightning.adapters.tuner.layer import AdapterLayer
from smoa_lightning.errors import UserError


class SlotLayer(AdapterLayer):
    r"""``h' = h + sum over active adapters of f(h)`` with ``h = base(x)``, after attention or feed-forward output.

    The base may be the output projection, or any module that returns the hidden states alone or first in a tuple. f is
    not linear, so there is no update of a weight: a slot cannot be merged, and its rank is not defined.

    A method supplies :meth:`residual`.

    Args:
        base_layer: The module after which the slot is.
        name: Full name of the module in its model.
        width: Size n of the hidden states.
    """

    def __init__(self, base_layer: nn.Module, name: str, width: int) -> None:
        super().__init__(base_layer, name)
        self.width = width

    def residual(self, h: Tensor, adapter: str) -> Tensor:
        """Return f(h) of shape (..., width) for h of that shape; zero for a new adapter."""
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module and pass its hidden states through the active adapters."""
        output = self.base_layer(*args, **kwargs)
        active = self.own_adapters()
        if self.disable_adapters or not active:
            return output
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        result = hidden
        for name in active:
            result = result + self.residual(self.dropouts[name](hidden), name).to(hidden.dtype)
        return (result, *output[1:]) if isinstance(output, tuple) else result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: a nonlinear map after a layer is no change of its weight.

        Raises:
            UserError: Always.
        """
        raise UserError(
            f"the adapter after {self.name} is a nonlinear map in the adapter slot and cannot be merged into a weight: "
            "keep it as an adapter, or use an update-slot method."
        )

    def unmerge(self) -> None:
        """Do nothing: a slot is never merged."""

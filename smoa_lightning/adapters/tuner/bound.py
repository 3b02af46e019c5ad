"""An update that is made of the frozen weight, and therefore belongs to one backbone only."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from smoa_lightning.adapters.tuner.fingerprint import (
    LENGTH,
    fingerprint,
    fingerprint_text,
    fingerprints_match,
    held_as,
)
from smoa_lightning.adapters.tuner.update import UpdateLayer
from smoa_lightning.backbones.quantization import quantization
from smoa_lightning.common.errors import UserError


class _Seen:
    """A stored weight as it was once, without keeping it alive."""

    def __init__(self, stored: Tensor) -> None:
        # An address alone may be that of another weight in the same memory; ``weight.data = ...`` changes the storage.
        self._weight, self._storage = weakref.ref(stored), weakref.ref(stored.untyped_storage())
        self._state = self._state_of(stored)

    def still(self, stored: Tensor) -> bool:
        """Whether it is what it was: the same tensor, whose content nothing has changed since."""
        if stored.is_inference():  # counts no changes
            return False
        same = self._weight() is stored and self._storage() is stored.untyped_storage()
        return same and self._state == self._state_of(stored)

    @staticmethod
    def _state_of(stored: Tensor) -> tuple[Any, ...]:
        return None if stored.is_inference() else stored._version, stored.data_ptr(), stored.dtype


class BoundLayer(UpdateLayer):
    """An :class:`UpdateLayer` whose update W takes part in: every adapter carries a fingerprint of W in its file.

    The fingerprint is taken when the adapter is prepared, and compared with the weight that is there whenever a state
    is loaded. A method names the container in ``fingerprint_name`` (and in ``frozen_state``), and derives what else
    it keeps from W in :meth:`fill_state`.

    Args:
        base_layer: The frozen layer.
        name: Full name of the layer in its model, used in messages.
    """

    fingerprint_name: str

    def __init__(self, base_layer: nn.Module, name: str = "") -> None:
        super().__init__(base_layer, name)
        self._prepared: set[str] = set()
        self._compared: dict[str, tuple[_Seen, list[int]]] = {}  # the weight that each adapter's fingerprint fits
        self._ahead: tuple[_Seen, Tensor] | None = None  # a weight, and its fingerprint taken before it was asked for
        self.register_load_state_dict_post_hook(_after_loading)

    def initial_state(self, config: Any) -> dict[str, Tensor]:
        """Return a fingerprint that is still unset."""
        return {self.fingerprint_name: torch.zeros(LENGTH, dtype=torch.int32)}

    def fill_state(self, adapter_name: str, weight: Tensor) -> None:
        """Compute what is unset of an adapter's other frozen state from the unmerged weight; nothing by default."""

    def prepare(self, adapter_name: str) -> None:
        """Fill what is unset of an adapter's frozen state from the unmerged weight, and check the fingerprint.

        Does nothing on the meta device, or where this was done before.

        Raises:
            UserError: The adapter was made for another base weight; the message shows both fingerprints.
        """
        if adapter_name in self._prepared or self._base().weight.is_meta or adapter_name not in self.configs:
            return
        with torch.no_grad(), torch.inference_mode(False):
            self.check_fingerprint(adapter_name)
            self.fill_state(adapter_name, self.unmerged_weight())
        self._prepared.add(adapter_name)

    def read_weight(self, adapter_name: str) -> None:
        """Take the fingerprint of the weight, unless it is known to fit: the next check will ask for it."""
        absent = adapter_name not in self.configs or self._base().weight.is_meta
        if absent or quantization(self._base()) is not None:
            return
        stored, compared = self._stored_weight(), self._compared.get(adapter_name)
        if compared is None or not compared[0].still(stored):
            self._ahead = _Seen(stored), fingerprint(stored)

    def check_fingerprint(self, adapter_name: str) -> None:
        """Take the fingerprint of the weight, or compare it with the one that the adapter carries.

        Raises:
            UserError: They differ.
        """
        saved = getattr(self, self.fingerprint_name)[adapter_name]
        stored, held = self._stored_weight(), quantization(self._base())
        seen, words = self._compared.get(adapter_name, (None, []))
        if held is None and seen is not None and seen.still(stored) and words == saved.tolist():
            return
        ahead, self._ahead = self._ahead, None
        own = ahead[1] if ahead is not None and ahead[0].still(stored) else fingerprint(stored, held)
        if not saved.any():
            saved.copy_(own)
        elif not fingerprints_match(saved, own, stored.dtype):
            made_for, then = "a base weight", "load the backbone and revision that its adapter_config.json names"
            if held_as(saved) != held:
                was, now = (kind or "floating point" for kind in (held_as(saved), held))
                made_for = f"a base weight held in {was} (here: {now})"
                then += f", with quantization {held_as(saved) or 'null'}"
            raise UserError(
                f"adapter {adapter_name!r} does not belong to this backbone: at layer {self.name} it was made for "
                f"{made_for} with fingerprint {fingerprint_text(saved)}, but here the base weight has fingerprint "
                f"{fingerprint_text(own)}; {then}."
            )
        self._compared[adapter_name] = _Seen(stored), saved.tolist()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what weak references stand for: they can be neither pickled nor copied."""
        return {**self.__dict__, "_compared": {}, "_ahead": None}

    def update_layer(self, adapter_name: str, config: Any) -> None:
        """Add an adapter that does not change anything yet."""
        super().update_layer(adapter_name, config)
        self.forget(adapter_name)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter with everything derived from it."""
        super().delete_adapter(adapter_name)
        self.forget(adapter_name)

    def forget(self, adapter_name: str) -> None:
        """Drop what was derived from an adapter's state, which has changed or gone."""
        self._prepared.discard(adapter_name)


def _after_loading(layer: BoundLayer, _incompatible_keys: Any) -> None:
    """After any load_state_dict: derived state is stale, and a file's fingerprint must be that of the base weight.

    A fingerprint that is still unset stays so: the backbone may not be in place yet.
    """
    for name in layer.configs:
        layer.forget(name)
        saved = getattr(layer, layer.fingerprint_name)[name]
        if not layer._base().weight.is_meta and not saved.is_meta and saved.any():
            layer.check_fingerprint(name)

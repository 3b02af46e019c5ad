"""A layer whose update depends on the frozen weight, so that an adapter belongs to one backbone only."""

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
    quantization_of,
)
from smoa_lightning.adapters.tuner.update import UpdateLayer
from smoa_lightning.backbones.quantization import quantization
from smoa_lightning.common.errors import UserError


class WeightSnapshot:
    """Detects changes of a stored weight, without keeping it alive."""

    def __init__(self, stored: Tensor) -> None:
        # A different weight may get the same address, and ``weight.data = ...`` changes the storage only.
        self._weight, self._storage = weakref.ref(stored), weakref.ref(stored.untyped_storage())
        self._state = self._state_of(stored)

    def unchanged(self, stored: Tensor) -> bool:
        """Whether this is the same tensor with unchanged content."""
        if stored.is_inference():  # such a tensor counts no changes
            return False
        same = self._weight() is stored and self._storage() is stored.untyped_storage()
        return same and self._state == self._state_of(stored)

    @staticmethod
    def _state_of(stored: Tensor) -> tuple[Any, ...]:
        return None if stored.is_inference() else stored._version, stored.data_ptr(), stored.dtype


class BoundLayer(UpdateLayer):
    """An :class:`UpdateLayer` whose update depends on W: the file of every adapter holds a fingerprint of W.

    The fingerprint is computed when the adapter is prepared, and compared with the present weight when a state is
    loaded. A method names its container in ``fingerprint_name`` (and in ``frozen_state``). Its :meth:`fill_state`
    derives further frozen state from W.

    Args:
        base_layer: The frozen layer.
        name: Full name of the layer in its model, used in messages.
    """

    fingerprint_name: str

    def __init__(self, base_layer: nn.Module, name: str = "") -> None:
        super().__init__(base_layer, name)
        self._prepared: set[str] = set()
        self._matched: dict[str, tuple[WeightSnapshot, list[int]]] = {}  # adapter -> matching weight and fingerprint
        self._prefetched: tuple[WeightSnapshot, Tensor] | None = None  # a weight and its fingerprint
        self.register_load_state_dict_post_hook(_after_loading)  # type: ignore[no-untyped-call]

    def initial_state(self, config: Any) -> dict[str, Tensor]:
        """Return an unset fingerprint."""
        return {self.fingerprint_name: torch.zeros(LENGTH, dtype=torch.int32)}

    def fill_state(self, adapter_name: str, weight: Tensor) -> None:
        """Compute an adapter's other unset frozen state from the unmerged weight; does nothing by default."""

    def prepare(self, adapter_name: str) -> None:
        """Compute an adapter's unset frozen state from the unmerged weight, and check the fingerprint.

        Does nothing on the meta device, or for an adapter that is already prepared.

        Raises:
            UserError: The adapter was made for a different base weight; the message shows both fingerprints. Or the
                weight has a value that is not finite.
        """
        if adapter_name in self._prepared or self.weight_is_absent() or adapter_name not in self.configs:
            return
        with torch.no_grad(), torch.inference_mode(False):
            weight = self.unmerged_weight()
            self._require_finite(weight)
            self.check_fingerprint(adapter_name)
            self.fill_state(adapter_name, weight)
        self._prepared.add(adapter_name)

    def _require_finite(self, weight: Tensor) -> None:
        low, high = torch.aminmax(weight)  # one pass without a second matrix; both are NaN if one value is
        if torch.isfinite(low) and torch.isfinite(high):
            return
        row, column = torch.isfinite(weight).logical_not().nonzero()[0].tolist()
        raise UserError(
            f"the weight of layer {self.name} is {float(weight[row, column])} for output {row} and input {column}, but "
            "an update that depends on the weight needs finite values: load an undamaged backbone, or leave the layer "
            "out of target_modules."
        )

    def assume_prepared(self) -> None:
        """Leave out :meth:`prepare` for the present adapters, of a model without values."""
        self._prepared |= set(self.configs)

    def prefetch_fingerprint(self, adapter_name: str) -> None:
        """Compute the fingerprint of the weight for the next check, unless the weight is known to match."""
        absent = adapter_name not in self.configs or self._base().weight.is_meta
        if absent or quantization(self._base()) is not None:
            return
        stored, matched = self._stored_weight(), self._matched.get(adapter_name)
        if matched is None or not matched[0].unchanged(stored):
            self._prefetched = WeightSnapshot(stored), fingerprint(stored)

    def check_fingerprint(self, adapter_name: str) -> None:
        """Set the adapter's fingerprint, or compare it with the fingerprint of the weight.

        Raises:
            UserError: They differ.
        """
        saved = getattr(self, self.fingerprint_name)[adapter_name]
        stored, kind = self._stored_weight(), quantization(self._base())
        snapshot, words = self._matched.get(adapter_name, (None, []))
        if kind is None and snapshot is not None and snapshot.unchanged(stored) and words == saved.tolist():
            return
        prefetched, self._prefetched = self._prefetched, None
        own = prefetched[1] if prefetched is not None and prefetched[0].unchanged(stored) else fingerprint(stored, kind)
        if not saved.any():
            saved.copy_(own)
        elif not fingerprints_match(saved, own, stored.dtype):
            made_for, advice = "a base weight", "load the backbone and revision that its adapter_config.json names"
            if quantization_of(saved) != kind:
                was, now = (name or "floating point" for name in (quantization_of(saved), kind))
                made_for = f"a base weight stored in {was} (here: {now})"
                advice += f", with quantization {quantization_of(saved) or 'null'}"
            raise UserError(
                f"adapter {adapter_name!r} does not belong to this backbone: at layer {self.name} it was made for "
                f"{made_for} with fingerprint {fingerprint_text(saved)}, but here the base weight has fingerprint "
                f"{fingerprint_text(own)}; {advice}."
            )
        self._matched[adapter_name] = WeightSnapshot(stored), saved.tolist()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the weak references, which cannot be pickled or copied."""
        return {**self.__dict__, "_matched": {}, "_prefetched": None}

    def update_layer(self, adapter_name: str, config: Any) -> None:
        """Add an adapter that starts without effect."""
        super().update_layer(adapter_name, config)
        self.forget(adapter_name)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter with its derived state."""
        super().delete_adapter(adapter_name)
        self.forget(adapter_name)

    def forget(self, adapter_name: str) -> None:
        """Drop everything that was derived from an adapter's state, after a change or a deletion."""
        self._prepared.discard(adapter_name)


def _after_loading(layer: BoundLayer, _incompatible_keys: Any) -> None:
    """After ``load_state_dict``, drop derived state and check that the loaded fingerprint matches the base weight.

    An unset fingerprint stays unset, since the backbone may not be loaded yet.
    """
    for name in layer.configs:
        layer.forget(name)
        saved = getattr(layer, layer.fingerprint_name)[name]
        if not layer.weight_is_absent() and not saved.is_meta and saved.any():
            layer.check_fingerprint(name)

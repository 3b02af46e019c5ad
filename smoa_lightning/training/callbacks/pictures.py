"""Pictures of a finished run: spectra, modulation and rank over time, for TensorBoard and other loggers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from peft import PeftModel
from torch import Tensor
from torch.nn import functional

from smoa_lightning.adapters import SmoaLinear, layer_update
from smoa_lightning.adapters.rank import base_shift, singular_values
from smoa_lightning.adapters.smoa.parts import modulation, subspace_parts
from smoa_lightning.adapters.tuner.other_layers import as_matrix, frozen_weight
from smoa_lightning.common.errors import one_line
from smoa_lightning.configuration.ranges import check_value
from smoa_lightning.training.callbacks.rank_monitor import RankMonitor, evenly
from smoa_lightning.training.loggers.contents import Picture, log_picture
from smoa_lightning.training.loggers.figures import Curve, Spectra, heat_picture, ranks_picture, spectra_picture
from smoa_lightning.training.sharding import gathered_weights

logger = logging.getLogger(__name__)
GROUP = "update_pictures"  # after the curves of training: TensorBoard sorts its cards by tag
TILES = 192  # most tiles of a heat map in each direction


class Pictures(Callback):
    """Draw pictures at the end of a run, of its best adapter, or of its last one if no report rows are scored.

    * ``spectra/<layer>``: the singular values of W and of the update, and of their parts in each subspace.
    * ``modulation/<layer>``: B A, which multiplies the weight in SMoA; for other methods ``update/<layer>``.
    * ``rank``: the effective rank of each measured layer over time.

    The layers are some of those that ``rank_monitor`` measures. Without them there is no picture. The spectrum of an
    update that it has measured is not computed again.
    """

    def __init__(self, layers: int = 3, min_steps: int = 300, max_side: int = 2048) -> None:
        """Set the number of layers.

        Args:
            layers: Number of layers with pictures, at even distances; 0 switches the pictures off.
            min_steps: A run with fewer optimizer steps has no pictures, since they would take a good part of its time.
            max_side: Layers whose smaller side is larger have no pictures, since their spectra would take minutes.
        """
        check_value("pictures.layers", layers)
        check_value("pictures.min_steps", min_steps)
        check_value("pictures.max_side", max_side)
        self.layers, self.min_steps, self.max_side = layers, min_steps, max_side

    def draw(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Give the pictures to the loggers of a finished run; an error is a warning. All processes must call this."""
        monitor = next((c for c in trainer.callbacks if isinstance(c, RankMonitor)), None)  # type: ignore[attr-defined]
        if not (self.layers and trainer.loggers and monitor is not None and monitor.history):
            return
        if trainer.global_step < self.min_steps:
            return
        began = time.monotonic()
        try:
            with gathered_weights(pl_module), torch.no_grad():
                for picture in self._pictures(pl_module, monitor) if trainer.is_global_zero else ():
                    log_picture(trainer.loggers, picture, trainer.global_step)
            for each in trainer.loggers if trainer.is_global_zero else ():
                each.save()
        except Exception as error:  # of matplotlib, of a logger's library or server, of the disk, or of memory
            logger.warning(
                "the run is finished, but some of its pictures are missing (%s); --pictures.layers 0 switches them off",
                one_line(error, 300, kind=True),
            )
        logger.debug("drew the pictures in %.1f s", time.monotonic() - began)

    def _pictures(self, module: Any, monitor: RankMonitor) -> Iterator[Picture]:
        network, names = module.network, list(monitor.bounds)
        fitting = [name for name in names if min(_shape(network, name)) <= self.max_side]
        if len(fitting) < len(names):
            logger.info(
                "%d of %d measured layers have no pictures of their spectra, since their smaller side is above "
                "--pictures.max_side %d",
                *(len(names) - len(fitting), len(names), self.max_side),
            )
        for name in evenly(fitting, self.layers):
            yield from layer_pictures(network, name, monitor.original(name), monitor)
        yield ranks_picture(f"{GROUP}/rank", monitor.history, monitor.bounds)


def _layer(network: Any, name: str) -> Any:
    return (network.get_base_model() if isinstance(network, PeftModel) else network).get_submodule(name)


def _shape(network: Any, name: str) -> tuple[int, int]:
    """Return (d_out, d_in) of a measured layer; a weight in 4 bits is stored in another shape."""
    layer = _layer(network, name)
    layer = layer.get_base_layer() if isinstance(network, PeftModel) else layer
    if hasattr(layer, "out_features"):
        return int(layer.out_features), int(layer.in_features)
    rows, columns = layer.weight.shape
    return int(rows), int(columns)


def layer_pictures(
    network: Any, name: str, original: Tensor | None, monitor: RankMonitor | None = None
) -> Iterator[Picture]:
    """Draw the pictures of one layer.

    Args:
        network: The trained model, with or without an adapter.
        name: Full name of the layer in the backbone.
        original: The weight of the backbone, if the layer no longer has it.
        monitor: It may have measured the spectrum of the update.
    """
    adapter: Any = network.active_adapter if isinstance(network, PeftModel) else None
    layer = _layer(network, name)
    weight, update = _weight_and_update(layer, adapter, original)
    own = isinstance(layer, SmoaLinear)
    of_weight, of_update = singular_values(weight), None if monitor is None else monitor.known_spectrum(name, update)
    parts = subspace_parts(layer, adapter, update, of_weight.cpu()) if own else []
    title = f"{name}   {weight.shape[0]} x {weight.shape[1]}"
    yield spectra_picture(
        f"{GROUP}/spectra/{name}",
        Spectra(
            title,
            Curve(of_weight.tolist()),
            Curve((singular_values(update) if of_update is None else of_update).tolist()),
            [Curve(part.weight.tolist(), part.first) for part in parts],
            [Curve(part.update.tolist()) for part in parts],
        ),
    )
    kind, matrix = ("modulation", modulation(layer, adapter)) if own else ("update", update)
    what = "modulation B A, blocks next to each other" if own else "update W' − W"
    shape = (matrix.shape[0], matrix.shape[1])
    yield heat_picture(f"{GROUP}/{kind}/{name}", f"{what}\n{title}", tile_sizes(matrix).tolist(), shape)


def _weight_and_update(layer: Any, adapter: str | None, original: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the weight of the backbone and the update, float32 and of shape (d_out, d_in)."""
    if adapter is None:
        assert original is not None, "a fully fine-tuned layer has a copy of its first weight"
        before = as_matrix(layer, original.to(layer.weight.device)).float()
        return before, as_matrix(layer, layer.weight).float() - before
    weight = frozen_weight(layer.get_base_layer()).detach().float()
    shift = None if original is None else base_shift(layer, original)
    return weight if shift is None else weight - shift, layer_update(layer, adapter, original)


def tile_sizes(matrix: Tensor, most: int = TILES) -> Tensor:
    """Return the root mean squares of at most ``most`` x ``most`` tiles of a matrix.

    >>> tile_sizes(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), most=1)
    tensor([[2.5000]])
    """
    sides = [min(most, side) for side in matrix.shape]
    squares = matrix.float().square()[None, None]
    return functional.adaptive_avg_pool2d(squares, (sides[0], sides[1]))[0, 0].sqrt()

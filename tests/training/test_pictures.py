"""Pictures of a run: the numbers in them, and the layers of every kind of method."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from smoa_lightning.adapters import SMoAConfig, layer_update
from smoa_lightning.adapters.rank import singular_values
from smoa_lightning.adapters.smoa.parts import modulation, subspace_parts
from smoa_lightning.training.callbacks import pictures
from smoa_lightning.training.callbacks.kept_states import kept_states
from smoa_lightning.training.callbacks.pictures import layer_pictures, tile_sizes
from smoa_lightning.training.callbacks.rank_monitor import RankMonitor


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out


def adapted(config: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    network = get_peft_model(Model(), config)
    layer: Any = network.get_base_model().layer
    for name, parameter in network.named_parameters():
        if "smoa" in name or "lora" in name:
            nn.init.normal_(parameter)
    return network, layer


@pytest.mark.parametrize("partition", ["spectral_blocks", "contiguous_blocks", "spectral_energy", "grid_blocks"])
def test_parts_have_the_spectra_of_the_subspaces(partition: str) -> None:
    config = SMoAConfig(partition=partition, r=4, num_subspaces=2, target_modules=["layer"])  # type: ignore[arg-type]
    _, layer = adapted(config)
    weight, update = layer.unmerged_weight().detach(), layer_update(layer)
    product = modulation(layer, "default")
    parts = subspace_parts(layer, "default", update)
    assert len(parts) == 2
    whole = torch.linalg.svdvals(weight.double())
    if partition == "spectral_energy":
        assert torch.allclose(torch.cat([part.weight for part in parts]), whole, atol=1e-6)
        assert [part.first for part in parts] == [0, len(parts[0].weight)]
        return
    order = layer.plan("default")
    if partition == "grid_blocks":
        expected = [torch.linalg.svdvals(weight[rows].double()) for rows in (slice(0, 4), slice(4, 8))]
        assert torch.allclose(product * weight, update, atol=1e-5)
    else:
        blocks = zip(order.rows, order.cols, strict=True)
        expected = [torch.linalg.svdvals(weight[rows][:, cols].double()) for rows, cols in blocks]
        arranged = weight[torch.cat(order.rows)][:, torch.cat(order.cols)] * product
        assert torch.allclose(arranged, update[torch.cat(order.rows)][:, torch.cat(order.cols)], atol=1e-5)
    for part, values in zip(parts, expected, strict=True):
        assert torch.allclose(part.weight, values, atol=1e-6)
    squares = sum(float(part.update.square().sum()) for part in parts)
    assert squares == pytest.approx(float(update.double().square().sum()), rel=1e-5)


def test_every_kind_of_method_has_its_pictures_and_the_same_bytes_again() -> None:
    smoa, _ = adapted(SMoAConfig(r=4, num_subspaces=2, target_modules=["layer"]))
    lora, _ = adapted(LoraConfig(r=2, target_modules=["layer"]))
    full, before = Model(), torch.zeros(8, 12)
    for network, original, kind in ((smoa, None, "modulation"), (lora, None, "update"), (full, before, "update")):
        first = list(layer_pictures(network, "layer", original))
        assert [picture.name for picture in first] == [f"update_pictures/{name}/layer" for name in ("spectra", kind)]
        assert all(picture.png.startswith(b"\x89PNG") for picture in first)

    assert list(layer_pictures(full, "layer", before)) == first


def test_a_measured_spectrum_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network, layer = adapted(SMoAConfig(partition="spectral_energy", r=4, num_subspaces=2, target_modules=["layer"]))
    computed: list[tuple[int, ...]] = []

    def counted(matrix: torch.Tensor) -> torch.Tensor:
        computed.append(tuple(matrix.shape))
        return singular_values(matrix)

    monkeypatch.setattr(pictures, "singular_values", counted)
    fresh = list(layer_pictures(network, "layer", None, RankMonitor()))
    assert computed == [(8, 12), (8, 12)]
    monitor, update = RankMonitor(), layer_update(layer)
    monitor._measured("layer", update)
    monitor.keep_spectra()
    monitor._measured("layer", 2 * update)  # of a later step
    computed.clear()
    assert list(layer_pictures(network, "layer", None, monitor)) == fresh
    assert computed == [(8, 12)]  # of W
    for other in (update * (1 + 1e-4), 3 * update):
        assert monitor.known_spectrum("layer", other) is None
    assert monitor.known_spectrum("another", update) is None


@pytest.mark.parametrize(("side", "names"), [(8, ["spectra/layer", "update/layer", "rank"]), (7, ["rank"])])
def test_large_layers_have_no_pictures_and_a_note(
    side: int, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    monitor = RankMonitor()
    monitor.bounds, monitor.history = {"layer": 2}, {1: {"layer": 1.0}, 2: {"layer": 1.5}}
    network, _ = adapted(LoraConfig(r=2, target_modules=["layer"]))
    with caplog.at_level("INFO", "smoa_lightning"):
        drawn = list(pictures.Pictures(max_side=side)._pictures(SimpleNamespace(network=network), monitor))
    assert [picture.name for picture in drawn] == [f"update_pictures/{name}" for name in names]
    assert ("1 of 1 measured layers have no pictures" in caplog.text) is (side == 7)
    assert ("--pictures.max_side 7" in caplog.text) is (side == 7)


def test_tiles_of_a_large_matrix() -> None:
    matrix = torch.arange(16.0).reshape(4, 4)
    assert tile_sizes(matrix, most=2)[1, 1].item() == pytest.approx((10**2 + 11**2 + 14**2 + 15**2) ** 0.5 / 2)


def test_ranks_over_time_survive_a_resume_and_not_the_state_of_the_best_adapter() -> None:
    interrupted, resumed = RankMonitor(), RankMonitor()
    interrupted.history, interrupted.bounds = {5: {"layer": 2.0}, 10: {"layer": 3.0}}, {"layer": 4}
    resumed.load_state_dict(interrupted.state_dict())
    assert (resumed.history, resumed.bounds) == (interrupted.history, {"layer": 4})
    with kept_states(L.Trainer(callbacks=[resumed], logger=False, accelerator="cpu", barebones=False)):
        resumed.load_state_dict({"logged_step": 5, "history": {5: {"layer": 2.0}}, "bounds": {"layer": 4}})
        assert list(resumed.history) == [5]
    assert list(resumed.history) == [5, 10]
    resumed.load_state_dict({"logged_step": 5})  # of version 0.1

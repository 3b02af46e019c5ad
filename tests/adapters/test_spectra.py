"""Spectra kept on disk: the orders as computed, one file a weight, and nothing that goes wrong there stops a run."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import numpy
import pytest
import torch

from smoa_lightning.adapters import SMoAConfig, attach, gram
from smoa_lightning.adapters.smoa import spectra, subspaces
from smoa_lightning.adapters.smoa.spectra import SpectraOf
from smoa_lightning.adapters.tuner.fingerprint import fingerprint


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMOA_LIGHTNING_CACHE", str(tmp_path))
    monkeypatch.setattr(spectra, "_reported", set())
    return tmp_path / "spectra" / f"v{spectra.VERSION}"


def forbidden(*_: object) -> None:
    raise AssertionError("the spectrum was computed again")


def of(weight: torch.Tensor) -> SpectraOf:
    return SpectraOf(weight, fingerprint(weight))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_second_time_reads_what_the_first_computed(
    dtype: torch.dtype, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.randn(9, 14).to(dtype)
    rows, cols = of(weight).orders(weight)
    values = of(weight).singular_values()
    expected = subspaces.spectral_orders(weight)
    assert torch.equal(rows, expected[0])
    assert torch.equal(cols, expected[1])
    numpy.testing.assert_allclose(values, numpy.linalg.svd(weight.double().numpy(), compute_uv=False), rtol=1e-6)
    assert len(list(folder.iterdir())) == 2
    monkeypatch.setattr(subspaces, "spectral_orders", forbidden)
    monkeypatch.setattr(gram, "singular_values", forbidden)
    again = of(weight.clone())
    assert all(map(torch.equal, again.orders(weight), (rows, cols)))
    assert torch.equal(again.singular_values(), values)


def test_weights_that_round_to_the_same_bfloat16_have_separate_files(folder: Path) -> None:
    weight = torch.randn(6, 8)
    other = weight.clone()
    other[2, 3] *= 1 + 1e-6
    assert torch.equal(fingerprint(weight), fingerprint(other))
    for matrix in (weight, other, weight.bfloat16()):
        of(matrix).orders(matrix)
    assert len(list(folder.iterdir())) == 3


def test_a_transposed_view_is_read_by_content(folder: Path) -> None:
    stored = torch.randn(8, 6)  # as Conv1D stores W^T
    rows, cols = of(stored.t()).orders(stored.t())
    assert all(map(torch.equal, (rows, cols), subspaces.spectral_orders(stored.t().contiguous())))


@pytest.mark.parametrize("content", [b"", b"no array", None], ids=["empty", "text", "wrong numbers"])
@pytest.mark.usefixtures("shown_notes")
def test_a_damaged_file_is_computed_again(
    content: bytes | None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = torch.randn(5, 7)
    expected = of(weight).orders(weight)
    (file,) = folder.iterdir()
    if content is None:
        spectra._write(file, torch.zeros(12, dtype=torch.int32))  # intact, but no permutation
    else:
        file.write_bytes(content)
    assert all(map(torch.equal, of(weight).orders(weight), expected))
    assert numpy.load(file).max() == 6
    assert ("is damaged" in capsys.readouterr().err) is (content is not None)


@pytest.mark.usefixtures("shown_notes")
@pytest.mark.parametrize("what", ["orders", "singular_values"])
def test_each_changed_byte_is_found_and_the_spectrum_computed_again(
    what: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = torch.randn(5, 7)
    expected = [*of(weight).orders(weight), of(weight).singular_values()]
    (file,) = folder.glob(f"*-{what}.npy")
    content = file.read_bytes()
    for place in random.Random(0).sample(range(len(content)), 50):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        monkeypatch.setattr(spectra, "_reported", set())
        assert all(map(torch.equal, [*of(weight).orders(weight), of(weight).singular_values()], expected))
        assert "is damaged (its checksum is wrong); the spectrum is computed again" in capsys.readouterr().err
        assert file.read_bytes() == content


@pytest.mark.usefixtures("shown_notes")
def test_a_folder_that_cannot_be_written_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SMOA_LIGHTNING_CACHE", str(tmp_path / "file"))
    for seed in range(3):
        weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
        of(weight).orders(weight)
    assert capsys.readouterr().err.count("cannot be cached") == 1


def test_a_second_injection_computes_no_spectrum(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def injected() -> torch.nn.Module:
        torch.manual_seed(0)
        model = torch.nn.Sequential(*(torch.nn.Linear(12, 12) for _ in range(5)))
        return attach(model, SMoAConfig(r=4, target_modules=["0", "1", "2", "3", "4"]), seed=0)

    first = injected().state_dict()
    monkeypatch.setattr(subspaces, "spectral_orders", forbidden)
    second = injected().state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_layers_prepared_in_parallel_have_the_orders_of_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six layers of three shapes; with two threads each waits for another one, so that they do run side by side."""
    original = subspaces.spectral_orders

    def prepared(threads: int) -> dict[str, torch.Tensor]:
        monkeypatch.setenv("SMOA_LIGHTNING_CACHE", str(tmp_path / str(threads)))  # each computes for itself
        meeting = threading.Barrier(threads)

        def orders(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            meeting.wait(timeout=60)
            return original(weight)

        monkeypatch.setattr(subspaces, "spectral_orders", orders)
        torch.manual_seed(0)
        shapes = [(24, 40), (40, 24), (33, 33)] * 2
        model = torch.nn.ModuleDict({str(index): torch.nn.Linear(*shape) for index, shape in enumerate(shapes)})
        torch.set_num_threads(threads)
        return attach(model, SMoAConfig(r=4, target_modules=list(model)), seed=0).state_dict()

    one, two = prepared(1), prepared(2)
    assert one.keys() == two.keys()
    assert sum("_order." in name for name in one) == 12
    assert all(torch.equal(one[name], two[name]) for name in one)

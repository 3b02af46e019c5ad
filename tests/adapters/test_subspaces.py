"""Scores, orders, cuts, masks and noise against independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smoa_lightning.adapters.smoa import subspaces

SHAPES = [(7, 12), (12, 7), (9, 9)]


def matrix(rows: int, cols: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, cols, generator=generator) * torch.rand(cols, generator=generator)


@pytest.mark.parametrize(("total", "parts", "expected"), [(7, 3, [3, 2, 2]), (6, 3, [2, 2, 2]), (3, 3, [1, 1, 1])])
def test_near_equal_sizes(total: int, parts: int, expected: list[int]) -> None:
    assert subspaces.near_equal_sizes(total, parts) == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_spectral_scores_follow_the_formula(shape: tuple[int, int]) -> None:
    weight = matrix(*shape)
    u, s, vt = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    index = np.arange(len(s))
    for vectors, scores in ((u, subspaces.spectral_scores(weight)[0]), (vt.T, subspaces.spectral_scores(weight)[1])):
        energy = vectors**2 * s**2
        np.testing.assert_allclose(scores.numpy(), (energy @ index) / energy.sum(1), rtol=1e-8)


def test_a_coordinate_without_energy_comes_last() -> None:
    weight = matrix(8, 10)
    weight[2] = 0
    weight[:, 5] = 0
    rows, cols = subspaces.spectral_scores(weight)
    assert rows.argmax() == 2
    assert cols.argmax() == 5
    assert torch.isfinite(rows).all()


@pytest.mark.parametrize("shape", [(9, 14), (14, 9)])
def test_spectral_blocks_find_planted_blocks(shape: tuple[int, int]) -> None:
    """Rows and columns of a strong and a weak block, shuffled: the first subspace must be the strong one."""
    strong_rows, strong_cols = -(-shape[0] // 2), -(-shape[1] // 2)
    planted = torch.zeros(shape)
    planted[:strong_rows, :strong_cols] = matrix(strong_rows, strong_cols) + 5
    planted[strong_rows:, strong_cols:] = matrix(shape[0] - strong_rows, shape[1] - strong_cols) * 1e-3
    generator = torch.Generator().manual_seed(1)
    rows, cols = torch.randperm(shape[0], generator=generator), torch.randperm(shape[1], generator=generator)
    # A weak block of rank 1 direction must not outrank the strong one's smallest direction.
    u, s, vh = torch.linalg.svd(planted[:strong_rows, :strong_cols], full_matrices=False)
    planted[:strong_rows, :strong_cols] = u @ torch.diag(s.clamp_min(1.0)) @ vh
    row_order, col_order = subspaces.block_orders(planted[rows][:, cols], "spectral_blocks", 2)
    assert set(rows[row_order[:strong_rows].long()].tolist()) == set(range(strong_rows))
    assert set(cols[col_order[:strong_cols].long()].tolist()) == set(range(strong_cols))


@pytest.mark.parametrize("partition", ["spectral_blocks", "contiguous_blocks", "random_blocks"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_orders_are_permutations_sorted_inside_each_block(partition: str, count: int) -> None:
    weight = matrix(11, 16)
    state = torch.get_rng_state()
    orders = subspaces.block_orders(weight, partition, count, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    for order, total in zip(orders, weight.shape, strict=True):
        assert order.dtype == torch.int32
        assert order.sort().values.tolist() == list(range(total))
        for part in order.split(subspaces.near_equal_sizes(total, count)):
            assert part.tolist() == sorted(part.tolist())
    again = subspaces.block_orders(weight, partition, count, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(orders, again, strict=True))


def test_contiguous_blocks_keep_and_random_blocks_change_the_order() -> None:
    weight = matrix(20, 30)
    assert subspaces.block_orders(weight, "contiguous_blocks", 3)[0].tolist() == list(range(20))
    first, second = (subspaces.block_orders(weight, "random_blocks", 3, seed=seed)[0] for seed in (0, 1))
    assert first.tolist() != list(range(20))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("energy", ["l1", "l2", "count"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_energy_cuts_are_the_quantiles(energy: str, count: int) -> None:
    values = torch.tensor([9.0, 5.0, 4.0, 3.0, 2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.1])
    share = {"l1": values, "l2": values**2, "count": torch.ones(12)}[energy].double()
    expected: list[int] = []
    for k in range(1, count):
        cut = next(i for i in range(1, 13) if share[:i].sum() / share.sum() >= k / count - 1e-9)
        expected.append(max(cut, expected[-1] + 1 if expected else 1))
    assert subspaces.energy_cuts(values, count, energy).tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([100.0, 1.0, 1.0, 1.0], [1, 2, 3]), ([1.0, 0.0, 0.0, 0.0], [1, 2, 3]), ([0.0, 0.0, 0.0, 0.0], [1, 2, 3])],
)
def test_no_subspace_is_empty(values: list[float], expected: list[int]) -> None:
    assert subspaces.energy_cuts(torch.tensor(values), 4).tolist() == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_energy_masks_are_the_spectral_parts(shape: tuple[int, int]) -> None:
    weight = matrix(*shape).double()
    masks = subspaces.energy_masks(weight, torch.tensor([2, 5]))
    u, s, vt = np.linalg.svd(weight.numpy(), full_matrices=False)
    for mask, (start, stop) in zip(masks, [(0, 2), (2, 5)], strict=True):
        expected = u[:, start:stop] * s[start:stop] @ vt[start:stop]
        np.testing.assert_allclose(mask.numpy(), expected, atol=1e-10)
    assert subspaces.energy_masks(weight.bfloat16(), torch.tensor([2]))[0].dtype == torch.bfloat16


def splitmix64(value: int) -> int:
    limit = 2**64
    value = value * 0x9E3779B97F4A7C15 % limit
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % limit
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % limit
    return value ^ (value >> 31)


def test_noise_is_the_stated_generator() -> None:
    key = splitmix64(5 + 1)
    expected = [[(splitmix64((i * 3 + j) ^ key) >> 40) / 2**24 for j in range(3)] for i in range(4)]
    assert subspaces.uniform_modulation(5, (4, 3), torch.float64, torch.device("cpu")).tolist() == expected


def test_noise_is_uniform_and_differs_between_seeds() -> None:
    first, second = (subspaces.uniform_modulation(s, (300, 400), torch.float32, torch.device("cpu")) for s in (0, 1))
    assert first.min() >= 0
    assert first.max() < 1
    assert abs(first.mean() - 0.5) < 0.01
    assert abs(first.var() - 1 / 12) < 0.005
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.02


def test_noise_does_not_depend_on_the_size_of_its_pieces() -> None:
    """More than 2**20 entries are made in pieces of rows; they must be those of one piece."""
    large = subspaces.uniform_modulation(2, (1100, 1000), torch.float32, torch.device("cpu"))
    key = splitmix64(3)
    for i, j in [(0, 0), (1047, 999), (1048, 0), (1099, 999)]:
        assert large[i, j] == (splitmix64((i * 1000 + j) ^ key) >> 40) / 2**24

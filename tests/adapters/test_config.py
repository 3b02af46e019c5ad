"""Defaults, ranks, validation and JSON of SMoAConfig."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
from peft import PeftConfig

from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.common.errors import UserError


def test_defaults_are_the_documented_ones() -> None:
    config = SMoAConfig()
    assert (config.r, config.num_subspaces, config.partition, config.modulation) == (8, 2, "spectral_blocks", "weight")
    assert (config.dropout, config.rank_split, config.energy, config.seed, config.bias) == (
        0.0,
        "total",
        "l1",
        0,
        "none",
    )
    assert config.alpha is None
    assert config.branch_ranks is None
    assert config.scaling == 1.0


@pytest.mark.parametrize(
    ("settings", "ranks"),
    [
        ({"r": 8, "num_subspaces": 3}, (3, 3, 2)),
        ({"r": 8, "num_subspaces": 2, "rank_split": "per_subspace"}, (8, 8)),
        ({"r": 8, "num_subspaces": 2, "branch_ranks": [7, 1]}, (7, 1)),
        ({"r": 8, "num_subspaces": 2, "branch_ranks": [7, 3], "rank_split": "per_subspace"}, (7, 3)),
        ({"r": 1, "num_subspaces": 2, "rank_split": "per_subspace"}, (1, 1)),
        ({"r": 5, "num_subspaces": 3, "partition": "grid_blocks"}, (2, 2, 1, 1, 2, 2, 2, 1, 2)),
        ({"r": 8, "num_subspaces": 2, "partition": "grid_blocks", "rank_split": "per_subspace"}, (8, 8, 8, 8)),
    ],
)
def test_ranks(settings: dict[str, Any], ranks: tuple[int, ...]) -> None:
    assert SMoAConfig(**settings).ranks == ranks


def test_scaling_is_alpha_over_r() -> None:
    assert SMoAConfig(r=8, alpha=4).scaling == 0.5
    assert SMoAConfig(r=8, alpha=4, rank_split="per_subspace").scaling == 0.5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"partition": "spectral_block"}, ["partition", "'spectral_block'", "nearest: spectral_blocks"]),
        ({"modulation": "wight"}, ["modulation", "nearest: weight"]),
        ({"rank_split": "sum"}, ["rank_split", "total, per_subspace"]),
        ({"energy": "l3"}, ["energy", "l1, l2, count"]),
        ({"bias": "some"}, ["bias", "none, all, smoa_only"]),
        ({"r": 0}, ["SMoAConfig.r is 0", "at least 1"]),
        ({"r": 2.0}, ["SMoAConfig.r is 2.0", "integer"]),
        ({"r": True}, ["SMoAConfig.r is True", "integer"]),
        ({"num_subspaces": 0}, ["num_subspaces is 0", "at least 1"]),
        ({"seed": -1}, ["seed is -1", "at least 0"]),
        ({"r": 2, "num_subspaces": 3}, ["r is 2", "at least num_subspaces = 3"]),
        ({"partition": "none"}, ["num_subspaces is 2", "set num_subspaces to 1"]),
        ({"dropout": 1.0}, ["dropout is 1.0", "less than 1"]),
        ({"dropout": -0.1}, ["dropout is -0.1"]),
        ({"alpha": 0}, ["alpha is 0", "above 0"]),
        ({"alpha": float("nan")}, ["alpha is nan"]),
        ({"branch_ranks": [4, 3]}, ["[4, 3] sum to 7", "r = 8"]),
        ({"branch_ranks": [8]}, ["has 1 entries", "num_subspaces = 2"]),
        ({"branch_ranks": [8, 0]}, ["branch_ranks[1] is 0"]),
        ({"branch_ranks": [4, 4], "partition": "grid_blocks"}, ["branch_ranks", "'grid_blocks' share r evenly"]),
        ({"target_modules": "all-linear", "layers_to_transform": [0]}, ["layers_to_transform", "list of names"]),
        ({"target_modules": ["q"], "layers_pattern": "h"}, ["layers_pattern", "layers_to_transform"]),
    ],
)
def test_bad_settings_are_one_clear_sentence(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        SMoAConfig(**settings)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.endswith(".")
    assert "\n" not in message


def test_json_round_trip_through_peft(tmp_path: Path) -> None:
    config = SMoAConfig(
        r=6, num_subspaces=3, branch_ranks=[3, 2, 1], partition="spectral_energy", energy="l2", alpha=3.0, seed=5,
        target_modules={"v_proj", "q_proj"}, exclude_modules=["lm_head"], dropout=0.1,
    )  # fmt: skip
    config.save_pretrained(str(tmp_path))
    loaded = PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(loaded, SMoAConfig)
    assert loaded == config
    assert loaded.target_modules == ["q_proj", "v_proj"]


@pytest.fixture
def parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(PeftConfig, "adapter")
    return parser


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_settings_come_from_class_path_and_flags(parser: jsonargparse.ArgumentParser) -> None:
    arguments = ["--adapter=smoa_lightning.adapters.SMoAConfig", "--adapter.r=6", "--adapter.partition=random_blocks"]
    made = parser.instantiate_classes(parser.parse_args([*arguments, "--adapter.target_modules=[q_proj]"])).adapter
    assert isinstance(made, SMoAConfig)
    assert (made.r, made.partition, made.target_modules) == (6, "random_blocks", ["q_proj"])
    with pytest.raises(argparse.ArgumentError, match="random_block"):
        parser.parse_args([*arguments[:2], "--adapter.partition=random_block"])


def test_every_field_has_a_help_text() -> None:
    own = SMoAConfig.__annotations__
    assert SMoAConfig.__doc__ is not None
    for name in own:
        assert f"        {name}: " in SMoAConfig.__doc__, name

"""Names tell methods apart: no two strategies of the shipped files share one."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import yaml

from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.adapters.adalora import AdaLoraConfig
from smoa_lightning.adapters.method_names import rank_of, strategy_name

ADAPTERS = sorted((Path(__file__).parents[2] / "experiments" / "adapters").glob("*.yaml"))

PEFT = [
    "lora",
    "rslora",
    "dora",
    "pissa",
    "adalora",
    "hira",
    "loha",
    "lokr",
    "c3a",
    "vera",
    "randlora",
    "gralora",
    "oft",
]
PEFT += ["boft", "ia3", "fourierft", "prefix", "prompt", "ptuning"]

NAMES: dict[str, Any] = {
    "lora": lambda: peft.LoraConfig(),
    "rslora": lambda: peft.LoraConfig(use_rslora=True),
    "dora": lambda: peft.LoraConfig(use_dora=True),
    "rsdora": lambda: peft.LoraConfig(use_dora=True, use_rslora=True),
    "pissa": lambda: peft.LoraConfig(init_lora_weights="pissa_niter_16"),
    "olora": lambda: peft.LoraConfig(init_lora_weights="olora"),
    "dora_pissa": lambda: peft.LoraConfig(init_lora_weights="pissa", use_dora=True),
    "lora_gaussian": lambda: peft.LoraConfig(init_lora_weights="gaussian"),
    "qalora": lambda: peft.LoraConfig(use_qalora=True),
    "adalora": lambda: AdaLoraConfig(),
    "hira": lambda: peft.HiraConfig(),
    "prefix_tuning": lambda: peft.PrefixTuningConfig(num_virtual_tokens=4),
    "prompt_tuning": lambda: peft.PromptTuningConfig(num_virtual_tokens=4),
    "p_tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=4),
    "surm_circulant": lambda: SimpleNamespace(
        peft_type="SURM", structure="circulant", slot="update", placement="houlsby"
    ),
    "surm_ldr_pfeiffer": lambda: SimpleNamespace(
        peft_type="SURM", structure="ldr", slot="adapter", placement="pfeiffer"
    ),
    "mora_rotation": lambda: SimpleNamespace(peft_type="MORA", type="rotation"),
    "smoa_spectral_blocks": lambda: SMoAConfig(),
    "smoa_none_random_modulation": lambda: SMoAConfig(partition="none", num_subspaces=1, modulation="random"),
}


@pytest.mark.parametrize("name", NAMES)
def test_name(name: str) -> None:
    assert strategy_name(NAMES[name](), frozen=False) == name


def test_without_an_adapter() -> None:
    assert strategy_name(None, frozen=False) == "full"
    assert strategy_name(None, frozen=True) == "frozen"


def test_no_two_shipped_files_share_a_name() -> None:
    names = {}
    for file in ADAPTERS:
        model = yaml.safe_load(file.read_text())["model"]
        config = None
        if model["adapter"] is not None:
            package, _, name = model["adapter"]["class_path"].rpartition(".")
            config = getattr(importlib.import_module(package), name)(**model["adapter"].get("init_args", {}))
        names[file.stem] = strategy_name(config, model["frozen"])
    assert len(set(names.values())) == len(names) == len(ADAPTERS), names
    other = {"ptuning": "p_tuning", "prefix": "prefix_tuning", "prompt": "prompt_tuning"}
    assert {file: names[file] for file in PEFT} == {file: other.get(file, file) for file in PEFT}


@pytest.mark.parametrize(
    ("config", "rank"),
    [
        (AdaLoraConfig(init_r=12, target_r=5), 5),
        (peft.LoraConfig(r=3), 3),
        (peft.IA3Config(), 0),
        (peft.C3AConfig(block_size=4), 0),
        (None, 0),
    ],
)
def test_rank_is_the_one_that_the_adapter_ends_with(config: Any, rank: int) -> None:
    assert rank_of(config) == rank

"""The rank monitor: ranks beside bounds, always against the backbone's own weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from smoa_lightning import FineTuneModule
from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.adapters.bottleneck import BottleneckConfig
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.training.callbacks import RankMonitor

NO_TRAINER: Any = None


def monitored(config: Any, backbone: Path, layers: int = 4) -> tuple[RankMonitor, FineTuneModule]:
    """A module whose parameters have moved since the monitor was set up."""
    module = FineTuneModule(BackboneConfig(source="local", path=str(backbone)), config)
    monitor = RankMonitor(layers)
    monitor.setup(NO_TRAINER, module, "fit")
    module.configure_model()
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return monitor, module


@pytest.mark.parametrize(
    ("config", "bound"),
    [
        (peft.LoraConfig(r=3), 3),
        (peft.LoraConfig(r=3, init_lora_weights="pissa"), 6),
        (peft.LoraConfig(r=3, init_lora_weights="olora", target_modules="all-linear"), 6),
        (SMoAConfig(r=4, target_modules=["q_proj", "v_proj"]), None),
        (None, None),
    ],
    ids=["lora", "pissa", "olora", "smoa", "full"],
)
def test_ranks_beside_bounds(config: Any, bound: int | None, tiny_backbone: Path) -> None:
    monitor, module = monitored(config, tiny_backbone)
    monitor.ranks = monitor.measure(module)
    assert len(monitor.ranks) == 4
    for name, rank in monitor.ranks.items():
        layer: Any = module.network.get_base_model() if config is not None else module.network  # type: ignore[operator]
        smaller = min(layer.get_submodule(name).weight.shape)
        assert rank.numerical == monitor.bounds[name] == (bound or smaller)
        assert 1 <= rank.stable <= rank.effective <= rank.numerical
    means = monitor.means()
    assert means["rank/bound_mean"] == means["rank/numerical_mean"] == sum(monitor.bounds.values()) / 4
    assert means["rank/stable_mean"] <= means["rank/effective_mean"]


def test_only_moved_weights_are_kept(tiny_backbone: Path) -> None:
    for config, kept in ((peft.LoraConfig(r=3), 0), (peft.LoraConfig(r=3, init_lora_weights="pissa"), 4)):
        monitor, module = monitored(config, tiny_backbone)
        monitor.measure(module)
        assert len(monitor._initial) == kept


@pytest.mark.filterwarnings("ignore:Unsupported layer type.*LlamaRMSNorm.*:UserWarning")  # peft, of a norm's class
@pytest.mark.parametrize(
    ("config", "said"),
    [
        (peft.PromptTuningConfig(num_virtual_tokens=2), "PROMPT_TUNING changes no weight matrix"),
        (peft.LNTuningConfig(), "LN_TUNING changes no weight matrix"),
        (BottleneckConfig(bottleneck_size=3), "is a nonlinear map in the adapter slot"),
    ],
    ids=["prompt", "norms", "bottleneck"],
)
@pytest.mark.usefixtures("shown_notes")
def test_without_a_rank_it_says_so_once(
    config: Any, said: str, tiny_backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor, module = monitored(config, tiny_backbone)
    assert monitor.measure(module) == {}
    assert said in capsys.readouterr().out
    assert monitor.max_layers == 0
    assert set(monitor.means().values()) == {-1.0}

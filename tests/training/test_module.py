"""The loss of a step, the parameters that move, the state that is kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning as L
import peft
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaMLP

from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.adapters.parameters import adapter_parameter_names
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.training.module import FineTuneModule

STRATEGIES: dict[str, Any] = {
    "smoa": lambda: SMoAConfig(r=4, num_subspaces=2),
    "lora": lambda: peft.LoraConfig(r=4),
    "dora": lambda: peft.LoraConfig(r=4, use_dora=True),
    "hira": lambda: peft.HiraConfig(r=4),
    "norms": lambda: SMoAConfig(r=4, num_subspaces=2, modules_to_save=["norm"]),
    "full": lambda: None,
}


def build(folder: Path, rows: Path, strategy: str = "smoa", batch_size: int = 8, **kwargs: Any) -> Any:
    backbone = BackboneConfig("local", path=str(folder), **kwargs)
    module = FineTuneModule(backbone, STRATEGIES[strategy]())
    data = TaskDataModule("piqa", "local", path=str(rows), batch_size=batch_size, selection_rows=8)
    data.tokenizer = module.tokenizer
    return module, data


def trainer(**kwargs: Any) -> L.Trainer:
    kwargs = {"max_steps": 1, "limit_val_batches": 0, "callbacks": []} | kwargs
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )


class Gradients(Callback):
    """Keep the gradients as the optimizer gets them, and the batches that made them."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}
        self.batches: list[dict[str, torch.Tensor]] = []
        self.held: set[int] = set()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append(batch)

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.held = {id(p) for group in optimizer.param_groups for p in group["params"]}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        found = {n: p.grad.clone() for n, p in pl_module.network.named_parameters() if p.grad is not None}
        self.gradients = found or self.gradients


@pytest.mark.parametrize("accumulate", [1, 3])
def test_step_loss_is_the_mean_over_all_its_target_tokens(
    accumulate: int, tiny_backbone: Path, piqa_folder: Path
) -> None:
    """Gradients of an accumulated step equal those of one dense computation over all its rows."""
    module, data = build(tiny_backbone, piqa_folder)
    seen = Gradients()
    trainer(accumulate_grad_batches=accumulate, callbacks=[seen]).fit(module, datamodule=data)
    assert len(seen.batches) == accumulate

    reference, _ = build(tiny_backbone, piqa_folder)
    reference.configure_model()
    network = reference.network.double()
    total, count = 0.0, 0
    for batch in seen.batches:
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            length = int(mask.sum())
            logits = network(ids[None, :length]).logits[0, :-1]
            total = total + F.cross_entropy(logits, labels[1:length], ignore_index=-100, reduction="sum")
            count += int((labels[1:length] != -100).sum())
    (total / count).backward()
    expected = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    assert expected.keys() == seen.gradients.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(seen.gradients[name].double(), gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_the_adapter_moves_and_the_optimizer_holds_exactly_it(
    strategy: str, tiny_backbone: Path, piqa_folder: Path
) -> None:
    module, data = build(tiny_backbone, piqa_folder, strategy)
    module.configure_model()
    before = {name: p.detach().clone() for name, p in module.network.named_parameters()}
    seen = Gradients()
    trainer(max_steps=2, callbacks=[seen]).fit(module, datamodule=data)
    names = dict(module.network.named_parameters())
    moved = {name for name, p in names.items() if not torch.equal(p, before[name])}
    expected = set(names) if strategy == "full" else adapter_parameter_names(module.network)
    assert moved == expected
    assert seen.held == {id(names[name]) for name in expected}


@pytest.mark.parametrize("strategy", ["smoa", "lora"])
def test_gradient_checkpointing_gives_the_same_gradients(strategy: str, tiny_backbone: Path, piqa_folder: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        module, data = build(tiny_backbone, piqa_folder, strategy, gradient_checkpointing=checkpointing)
        seen = Gradients()
        trainer(callbacks=[seen]).fit(module, datamodule=data)
        gradients.append(seen.gradients)
    assert gradients[0].keys() == gradients[1].keys()
    assert any(g.abs().max() > 0 for g in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("strategy", ["lora", "smoa", "full"])
def test_a_layer_that_the_first_step_does_not_reach_is_named(
    strategy: str,
    used: bool,
    tiny_backbone: Path,
    piqa_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not used:  # gate_proj is trained, but never called
        monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: self.down_proj(self.act_fn(self.up_proj(x))))
    monkeypatch.setitem(STRATEGIES, "lora", lambda: peft.LoraConfig(r=4, target_modules=["gate_proj", "up_proj"]))
    targets = ["gate_proj", "up_proj"]
    monkeypatch.setitem(STRATEGIES, "smoa", lambda: SMoAConfig(r=4, num_subspaces=2, target_modules=targets))
    module, data = build(tiny_backbone, piqa_folder, strategy)
    trainer(max_steps=2).fit(module, data)
    told = [line for line in caplog.messages if "got no gradient" in line]
    assert len(told) == (0 if used else 1)  # once, not at each step
    if told:
        assert re.search(r"no gradient in the first step, such as \S*layers\.0\.mlp\.gate_proj", told[0])
        assert ("exclude_modules" in told[0]) == (strategy != "full")


@pytest.mark.parametrize("strategy", ["lora", "saved", "full"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_trained_tensors_in_half_precision_are_named(
    strategy: str,
    dtype: str,
    tiny_backbone: Path,
    piqa_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["norm"])
    monkeypatch.setitem(STRATEGIES, "saved", lambda: config)
    module, data = build(tiny_backbone, piqa_folder, strategy, dtype=dtype)
    trainer(max_steps=2).fit(module, data)
    told = [line for line in caplog.messages if "trained tensors are in half precision" in line]
    assert len(told) == (1 if dtype == "bfloat16" and strategy != "lora" else 0)
    if told and strategy == "saved":
        assert re.search(r"^5 trained tensors .* such as \S*input_layernorm\.modules_to_save", told[0])


@pytest.mark.parametrize("scale", [0, 15])
@pytest.mark.parametrize("strategy", ["delora", "smoa"])
def test_an_adapter_without_any_gradient_is_told(
    strategy: str,
    scale: int,
    tiny_backbone: Path,
    piqa_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """DeLoRA's bound of 0, and a module of which no output is used: gradients are there, and all are zero."""
    config = peft.DeloraConfig(r=4, delora_lambda=scale, target_modules=["q_proj"])
    monkeypatch.setitem(STRATEGIES, "delora", lambda: config)
    monkeypatch.setitem(STRATEGIES, "smoa", lambda: SMoAConfig(r=4, num_subspaces=2, target_modules=["gate_proj"]))
    if strategy == "smoa":
        used = min(scale, 1)
        monkeypatch.setattr(
            LlamaMLP, "forward", lambda self, x: self.down_proj(self.up_proj(x) + used * self.gate_proj(x))
        )
    module, data = build(tiny_backbone, piqa_folder, strategy)
    trainer(max_steps=2).fit(module, data)
    told = [line for line in caplog.messages if "all gradients of the adapter are zero" in line]
    assert len(told) == (0 if scale else 1)


def test_foreign_trainable_parameters_are_refused(tiny_backbone: Path, piqa_folder: Path) -> None:
    module, data = build(tiny_backbone, piqa_folder)
    module.configure_model()
    next(p for n, p in module.network.named_parameters() if "norm" in n).requires_grad_(True)
    with pytest.raises(RuntimeError, match=r"differ from the adapter's: .*norm"):
        trainer().fit(module, datamodule=data)


def test_adapter_seed_alone_decides_the_initial_values(tiny_backbone: Path) -> None:
    states = []
    for seed, noise in ((0, 1), (0, 2), (3, 1)):
        torch.manual_seed(noise)
        module = FineTuneModule(BackboneConfig("local", path=str(tiny_backbone)), SMoAConfig(r=4), adapter_seed=seed)
        module.configure_model()
        states.append({n: p for n, p in module.network.named_parameters() if p.requires_grad})
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert any(not torch.equal(states[0][n], states[2][n]) for n in states[0])


def test_bfloat16_backbone_keeps_float32_adapters(tiny_backbone: Path, piqa_folder: Path) -> None:
    module, data = build(tiny_backbone, piqa_folder, dtype="bfloat16")
    trainer().fit(module, datamodule=data)
    dtypes = {p.requires_grad: p.dtype for p in module.network.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}


def test_state_of_another_strategy_or_shape_is_refused(tiny_backbone: Path) -> None:
    module = FineTuneModule(BackboneConfig("local", path=str(tiny_backbone)), SMoAConfig(r=4))
    module.configure_model()
    state = module.state_dict()
    renamed = {f"{name}x": value for name, value in state.items()}
    with pytest.raises(UserError, match="a different strategy"):
        module.load_state_dict(renamed)
    name = next(iter(state))
    with pytest.raises(UserError, match="a different adapter shape"):
        module.load_state_dict({**state, name: state[name][:1]})

"""AdaLoRA: ranks really fall to their budget, as in a plain loop around peft's own model; resumed bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import peft
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from torch.nn import functional as F

from smoa_lightning.__main__ import main
from smoa_lightning.adapters.adalora import AdaLoraConfig, RankAllocation, schedule
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.training.adapter_folder import load_adapter, save_adapter
from smoa_lightning.training.module import FineTuneModule

SETTINGS: dict[str, Any] = {
    "init_r": 6,
    "target_r": 2,
    "lora_alpha": 32,
    "tinit": 1,
    "tfinal": 3,
    "orth_reg_weight": 0.1,
}
LAYERS = 2 * 5
STEPS = 9


def build(folder: Path, rows: Path, config: Any, batch_size: int = 8) -> tuple[FineTuneModule, TaskDataModule]:
    optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=2e-2, weight_decay=0.0)  # noqa: E731
    module = FineTuneModule(BackboneConfig("local", path=str(folder)), config, optimizer=optimizer, decay="constant")
    data = TaskDataModule("piqa", "local", path=str(rows), batch_size=batch_size, selection_rows=8)
    data.tokenizer = module.tokenizer
    return module, data


class Watch(Callback):
    """Keep the batches and the number of singular values that are not zero after each optimizer step."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.ranks: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append(batch)
        self.ranks.append(pl_module.allocation.mean_rank())


def train(
    module: FineTuneModule, data: TaskDataModule, steps: int = STEPS, accumulate: int = 1, watch: Watch | None = None
) -> Watch:
    watch = watch or Watch()
    L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        limit_val_batches=0,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    ).fit(module, datamodule=data)
    return watch


def trained(network: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("deltat", [1, 2])
def test_training_equals_a_plain_loop_around_pefts_model(
    accumulate: int, deltat: int, tiny_backbone: Path, piqa_folder: Path
) -> None:
    """The plain loop takes loss and penalty from peft's forward, and calls ``update_and_allocate`` as peft says."""
    module, data = build(tiny_backbone, piqa_folder, AdaLoraConfig(**SETTINGS, deltaT=deltat))
    watch = train(module, data, accumulate=accumulate)
    assert len(watch.batches) == STEPS * accumulate

    config = peft.AdaLoraConfig(**SETTINGS, deltaT=deltat, total_step=STEPS)
    reference, _ = build(tiny_backbone, piqa_folder, config)
    reference.configure_model()
    network: Any = reference.network
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=2e-2, weight_decay=0.0)
    for step in range(1, STEPS + 1):
        group = watch.batches[(step - 1) * accumulate : step * accumulate]
        length = max(batch["input_ids"].shape[1] for batch in group)
        joined = {
            key: torch.cat([F.pad(b[key], (0, length - b[key].shape[1]), value=value) for b in group])
            for key, value in (("input_ids", 0), ("attention_mask", 0), ("labels", -100))
        }
        warmup = 1 / 2 if step == 1 else 1.0  # one step of warm-up: 6 % of 9, rounded up
        optimizer.param_groups[0]["lr"] = 2e-2 * warmup
        network(**joined).loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in network.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        network.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    ours, theirs = trained(module.network), trained(network)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=2e-5, rtol=1e-4)
        if "lora_E" in name:
            assert torch.equal(ours[name] == 0, value == 0)
    assert watch.ranks[-1] == SETTINGS["target_r"]
    assert watch.ranks[accumulate - 1] == SETTINGS["init_r"]


def test_rank_falls_to_the_budget_and_stays(tiny_backbone: Path, piqa_folder: Path) -> None:
    module, data = build(tiny_backbone, piqa_folder, AdaLoraConfig(**(SETTINGS | {"tinit": 2})))
    ranks = train(module, data).ranks
    assert ranks[:2] == [6, 6]  # tinit
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[2] < 6
    assert ranks[STEPS - 4] > 0
    assert ranks[STEPS - 3 - 1 :] == [2, 2, 2, 2]  # after the last cut, and tfinal steps more


@pytest.mark.parametrize("steps", [1, 2])
def test_shortest_runs_end_at_the_budget_too(steps: int, tiny_backbone: Path, piqa_folder: Path) -> None:
    config = AdaLoraConfig(init_r=6, target_r=2, tinit=0.1, tfinal=0.5)
    module, data = build(tiny_backbone, piqa_folder, config)
    assert train(module, data, steps=steps).ranks[-1] == 2


def test_penalty_is_that_of_pefts_forward(tiny_backbone: Path, piqa_folder: Path) -> None:
    losses = []
    for weight in (0.0, 0.7):
        config = peft.AdaLoraConfig(init_r=6, target_r=2, total_step=9, orth_reg_weight=weight)
        module, _ = build(tiny_backbone, piqa_folder, config)
        module.configure_model()
        network: Any = module.network
        network.double()
        ids = torch.tensor([[1, 9, 8, 7]])
        losses.append(network(input_ids=ids, labels=ids).loss)
    penalty = module.allocation.penalty()  # type: ignore[union-attr]
    # transformers computes its loss in float32
    assert 0.7 * penalty.item() == pytest.approx(
        (losses[1] - losses[0]).item(), rel=1e-6
    )  # transformers computes its loss in float32
    losses[1].backward()
    theirs = {n: p.grad.clone() for n, p in network.named_parameters() if p.requires_grad}
    network.zero_grad()
    ids_only = network(input_ids=ids).logits[0, :-1]
    F.cross_entropy(ids_only, ids[0, 1:]).backward()
    module.allocation.add_penalty_gradients()  # type: ignore[union-attr]
    for name, gradient in theirs.items():
        torch.testing.assert_close(network.get_parameter(name).grad, gradient, atol=1e-7, rtol=1e-5)


def arguments(tiny_arguments: list[str], **settings: Any) -> list[str]:
    kept = [argument for argument in tiny_arguments if argument not in ("--model.adapter.r", "4")]
    kept += ["--model.adapter", "smoa_lightning.adapters.adalora.AdaLoraConfig"]
    for key, value in {"init_r": 6, "target_r": 2, **settings}.items():
        kept += [f"--model.adapter.{key}", str(value)]
    return [*kept, "--run.score_base", "false", "--trainer.limit_test_batches", "1"]


def only_run(root: Path) -> Path:
    (record,) = root.glob("*/version_*/record.json")
    return record.parent


class Killed(BaseException):
    """Stands for the loss of the machine."""


def test_resumed_run_equals_an_uninterrupted_one(
    tiny_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut comes while ranks are cut: without the importances of before, other directions would survive."""
    command = ["fit", *arguments(tiny_arguments, tinit=1, tfinal=1), "--trainer.max_steps", "6"]
    command += ["--checkpoint.every_n_steps", "3", "--model.optimizer.init_args.lr", "0.02"]
    assert main([*command, "--run.root", str(tmp_path / "whole")]) == 0
    original = FineTuneModule.on_before_optimizer_step

    def hook(self: FineTuneModule, optimizer: Any) -> None:
        if self.trainer.global_step == 4:
            raise Killed
        original(self, optimizer)

    with monkeypatch.context() as patch:
        patch.setattr(FineTuneModule, "on_before_optimizer_step", hook)
        with pytest.raises(Killed):
            main([*command, "--run.root", str(tmp_path / "cut")])
    checkpoint = torch.load(only_run(tmp_path / "cut") / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
    assert len(checkpoint["allocation"]["exp_avg_ipt"]) == 3 * LAYERS
    assert main([*command, "--run.root", str(tmp_path / "cut")]) == 0
    file = "adapter/last/adapter_model.safetensors"
    whole, resumed = (load_file(only_run(tmp_path / part) / file) for part in ("whole", "cut"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


class SaveEachStep(Watch):
    """Write the adapter after each step, and keep what the trained model says at that moment."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.logits: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *args)
        facts = {"task": "piqa", "data_source": "local", "which": "last", "step": trainer.global_step}
        save_adapter(pl_module, self.folder / str(trainer.global_step), facts | {"selection": SELECTION})
        with torch.no_grad():
            self.logits.append(pl_module.network(input_ids=IDS).logits)


SELECTION = {"metric": "acc", "score": None}
IDS = torch.tensor([[1, 80, 90, 100, 110]])


@pytest.mark.parametrize("deltat", [1, 4])
def test_adapter_saved_at_any_step_loads_with_the_same_logits(
    deltat: int, tiny_backbone: Path, piqa_folder: Path, tmp_path: Path
) -> None:
    """Also between two cuts, where zeroed directions have grown back, and where a layer has lost all its ranks."""
    config = AdaLoraConfig(**(SETTINGS | {"target_r": 1}), deltaT=deltat)
    module, data = build(tiny_backbone, piqa_folder, config)
    watch = SaveEachStep(tmp_path)
    train(module, data, watch=watch)
    stored: list[list[int]] = []
    for step, expected in enumerate(watch.logits, start=1):
        weights = load_file(tmp_path / str(step) / "adapter_model.safetensors")
        stored.append([len(value) for name, value in weights.items() if "lora_E" in name])
        loaded, _ = load_adapter(tmp_path / str(step))
        with torch.no_grad():
            torch.testing.assert_close(loaded(input_ids=IDS).logits, expected, atol=1e-6, rtol=1e-5)
    whole = [ranks == [6] * LAYERS for ranks in stored]
    cuts = [4, 6, 7, 8, 9] if deltat == 4 else range(2, STEPS + 1)
    assert [step for step in range(1, STEPS + 1) if not whole[step - 1]] == list(cuts)
    assert sum(stored[-1]) == LAYERS
    assert min(stored[-1]) == 0
    assert watch.ranks[-1] == 1


def test_the_run_fills_in_its_length_and_checks_a_given_one(tiny_backbone: Path, piqa_folder: Path) -> None:
    module, data = build(tiny_backbone, piqa_folder, AdaLoraConfig(init_r=6, target_r=2, tinit=0.2, tfinal=0.25))
    train(module, data)
    settings: Any = module.allocation.config  # type: ignore[union-attr]
    assert (settings.total_step, settings.tinit, settings.tfinal) == (9, 1, 2)
    module, data = build(tiny_backbone, piqa_folder, peft.AdaLoraConfig(init_r=6, target_r=2, total_step=8))
    with pytest.raises(UserError, match=r"total_step is 8, but the run has 9 optimizer steps: set it to 9"):
        train(module, data)


@pytest.mark.parametrize(("tinit", "tfinal"), [(5, 5), (0.5, 0.5), (12, 0), (-1, 0), (0, 10)])
def test_schedules_without_a_cut_are_refused(tinit: float, tfinal: float) -> None:
    with pytest.raises(UserError, match="leave no step to cut ranks in a run of 10 steps"):
        schedule(None, tinit, tfinal, total=10)


@pytest.mark.parametrize("ranks", [(4, 4), (4, 8), (4, 0)])
def test_target_must_be_below_the_initial_rank(ranks: tuple[int, int], tiny_backbone: Path, piqa_folder: Path) -> None:
    module, _ = build(tiny_backbone, piqa_folder, AdaLoraConfig(init_r=ranks[0], target_r=ranks[1]))
    with pytest.raises(UserError, match="choose target_r between 1 and 3"):
        module.configure_model()


def test_allocation_is_made_for_adalora_only(tiny_backbone: Path, piqa_folder: Path) -> None:
    module, _ = build(tiny_backbone, piqa_folder, AdaLoraConfig(init_r=6, target_r=2))
    module.configure_model()
    assert isinstance(module.allocation, RankAllocation)
    module, _ = build(tiny_backbone, piqa_folder, peft.LoraConfig())
    module.configure_model()
    assert module.allocation is None

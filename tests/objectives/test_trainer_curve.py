"""The loss curve of a fit against that of transformers' ``Trainer`` with peft and the model's own head and loss."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import peft
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.embedded import backbone_folder, rows
from smoa_lightning.objectives import objective_of
from smoa_lightning.training.module import FineTuneModule

STEPS, BATCH, RATE = 6, 16, 5e-3
FIELDS = {"sst2": ("sentence",), "mnli": ("premise", "hypothesis"), "stsb": ("sentence1", "sentence2")}


class Curve(L.Callback):
    """Keeps the trained tensors at the start, and the rows, loss and rate of every step."""

    def __init__(self) -> None:
        self.start: dict[str, torch.Tensor] = {}
        self.rows: list[int] = []
        self.losses: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        for module in pl_module.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # the two programs draw different numbers
        named = pl_module.network.named_parameters()
        self.start = {name: p.detach().clone() for name, p in named if p.requires_grad}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.rows += batch["row"].tolist()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


class InOrder(Trainer):
    """Takes the rows in their order, and keeps the loss of every step."""

    curve: list[float]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        value = super().compute_loss(*args, **kwargs)
        self.curve.append(value.item())
        return value


@pytest.mark.parametrize("task", FIELDS)
def test_the_loss_curve_is_that_of_transformers_trainer(task: str, tmp_path: Path) -> None:
    """float32, 1e-5, with the embedded encoder, LoRA, AdamW, linear decay and clipping."""
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"])
    data = TaskDataModule(task, "embedded", batch_size=BATCH, selection_rows=0, max_length=48, cache=False)
    optimizer = partial(torch.optim.AdamW, lr=RATE, weight_decay=0.1)
    module = FineTuneModule(BackboneConfig("embedded"), config, optimizer=optimizer, warmup=0)
    module.objective = objective_of(data.sets)
    data.tokenizer = module.tokenizer
    curve = Curve()
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    L.Trainer(
        accelerator="cpu", max_steps=STEPS, gradient_clip_val=1.0, callbacks=[curve], limit_val_batches=0,
        enable_model_summary=False, **quiet,
    ).fit(module, datamodule=data)  # fmt: skip

    folder, head = str(backbone_folder("regression")), module.objective.head
    dropouts = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, **head.settings(), **dropouts
    )
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], task_type="SEQ_CLS")
    reference: Any = peft.get_peft_model(model, config)
    trained = {name: p for name, p in reference.named_parameters() if p.requires_grad}
    assert trained.keys() == curve.start.keys()
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(curve.start[name])
    tokenizer, given = AutoTokenizer.from_pretrained(folder), rows(task, "train")
    kind = float if task == "stsb" else int
    features = [
        {
            **tokenizer(*(given[n][f] for f in FIELDS[task]), truncation=True, max_length=48),
            "labels": kind(given[n]["label"]),
        }
        for n in curve.rows
    ]
    trainer = InOrder(
        reference,
        TrainingArguments(
            str(tmp_path), per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=RATE, weight_decay=0.1,
            lr_scheduler_type="linear", warmup_steps=0, max_grad_norm=1.0, use_cpu=True, report_to=[],
            disable_tqdm=True, save_strategy="no", dataloader_pin_memory=False,
        ),
        train_dataset=features,  # type: ignore[arg-type]
        data_collator=DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    trainer.curve = []
    trainer.train()
    assert len(curve.losses) == len(trainer.curve) == STEPS
    assert trainer.curve == pytest.approx(curve.losses, rel=1e-5, abs=1e-5)
    assert max(curve.losses) - min(curve.losses) > 0.01

"""What is refused before the base model is scored, and the loss scaler of 16-mixed."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from smoa_lightning import embedded
from smoa_lightning.__main__ import main
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.training.early_checks import check_before_work, check_length
from smoa_lightning.training.module import FineTuneModule
from smoa_lightning.training.unchanged import read_digests

REFUSED = [
    ("--model.warmup 1e9", "model.warmup is 1e+09 steps, but the run has 18 steps: set it to at most 18"),
    ("--model.warmup 19", "set it to at most 18, or to a share of all steps below 1"),
    (
        "--trainer.val_check_interval 19",
        "an epoch has 18 batches, so no adapter would be selected: set it to at most 1",
    ),
    (
        "--trainer.val_check_interval 40 --trainer.check_val_every_n_epoch null --trainer.max_epochs 2",
        "the run has 36 batches, so no adapter would be selected: set it to at most 36",
    ),
    ("--model.adapter.modules_to_save [nope]", "modules_to_save entry 'nope' matches no module of LlamaForCausalLM"),
    ("--model.adapter.target_modules [nope]", "target_modules entry 'nope' matches no module"),
    ("--model.adapter.r 5000", "between 1 and"),
    ("--model.adapter.r 999 --model.adapter.num_subspaces 999", "num_subspaces is 999, but"),
    ("--model.adapter peft.VBLoRAConfig --model.adapter.vector_length 7", "peft refuses this VBLoRAConfig"),
    ("--model.adapter peft.LoraConfig --model.adapter.lora_alpha 0", "LoraConfig.lora_alpha is 0, which multiplies"),
    ("--model.adapter peft.LoHaConfig --model.adapter.alpha 0", "LoHaConfig.alpha is 0, which multiplies the update"),
    ("--model.optimizer.betas [2.0,0.9]", "model.optimizer: Invalid beta parameter at index 0: 2.0"),
    ("--model.optimizer torch.optim.SparseAdam", "SparseAdam cannot do a step: SparseAdam does not support dense"),
    ("--model.optimizer.capturable true", "AdamW cannot do a step: If capturable=True"),
    ("--model.optimizer.differentiable true", "AdamW cannot do a step: a leaf Variable"),
    ("--model.adapter peft.LoraConfig --model.adapter.rank_pattern {'(':3}", "peft refuses this LoraConfig: missing )"),
    ("--model.adapter peft.LoraConfig --model.adapter.trainable_token_indices [999999]", "has the token 999999"),
    ("--trainer.limit_train_batches 0.01", "leaves no training batch: set it to at least 1"),
    ("--data.rules llm_adapters --data.num_beams 2", "data.num_beams is 2, but data.rules: llm_adapters decides it"),
    ("--data.rules llm_adapter", "llm_adapters"),
    ("--trainer.devices 0", "devices"),
    ("--trainer.accelerator tpu", ""),
    ("--trainer.strategy nope", "nope"),
    ("--trainer.gradient_clip_algorithm nope", "nope"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_refused_before_the_base_model_is_scored(
    words: str, message: str, tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *tiny_arguments, *words.split()]) == 2
    assert not (tmp_path / "runs").exists()
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert "scoring the base model" not in shown.out


@pytest.mark.parametrize(
    ("scores", "refused"),
    [
        ({"score_base": False, "score_report": False}, False),
        ({"score_base": True, "score_report": False}, True),
        ({"score_base": False, "score_report": True}, True),
    ],
)
def test_report_rows_are_read_if_they_are_scored(
    scores: dict[str, bool], refused: bool, tiny_backbone: Path, tmp_path: Path
) -> None:
    lines = [json.dumps(row) for row in embedded.rows("piqa", "train")[:24]]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    (tmp_path / "validation.jsonl").write_text("{")
    module = FineTuneModule(BackboneConfig("local", path=str(tiny_backbone)), None)
    data = TaskDataModule("piqa", "local", path=str(tmp_path), batch_size=4, selection_rows=8)
    data.tokenizer = module.tokenizer
    data.resolve()
    trainer = L.Trainer(accelerator="cpu", logger=False, max_epochs=1, limit_test_batches=0.5)
    config = {"run": scores, "model": {}}
    with pytest.raises(UserError, match=r"validation\.jsonl") if refused else contextlib.nullcontext():
        check_before_work(trainer, module, data, config)
    with pytest.raises(UserError, match=r"validation\.jsonl") if refused else contextlib.nullcontext():
        digests = read_digests(data, config, True, any(scores.values()), {"piqa/validation": "a", "piqa/train": "b"})
        assert digests["piqa/validation"] == "a"  # of the start of the run
        assert digests["piqa/train"] != "b"


@pytest.mark.parametrize(
    ("warmup", "batches", "settings"),
    [
        (18, 18, {}),
        (9, 18, {"accumulate_grad_batches": 2}),
        (0.5, 18, {"val_check_interval": 18}),
        (0, 18, {"val_check_interval": 36, "check_val_every_n_epoch": None, "max_epochs": 2}),
        (0, 18, {"val_check_interval": 0.01}),
        (5, 18, {"max_steps": 5, "max_epochs": -1}),
        (0, 18, {"limit_train_batches": 1}),
        (0, 18, {"fast_dev_run": True}),
    ],
)
def test_the_longest_valid_lengths_pass(warmup: float, batches: int, settings: dict[str, Any]) -> None:
    trainer = L.Trainer(**{"accelerator": "cpu", "logger": False, "max_epochs": 1} | settings)
    check_length(trainer, warmup, batches, selects=True)


def scaled_run(backbone: Path, rows: Path, scale: float, broken: bool) -> tuple[Any, list[float], list[float]]:
    """Train for 20 steps with a loss scaler; return the module, its scales and how far the adapter moved by step."""
    torch.manual_seed(0)
    import peft

    module = FineTuneModule(BackboneConfig("local", path=str(backbone)), peft.LoraConfig(r=4), warmup=0)
    data = TaskDataModule("piqa", "local", path=str(rows), batch_size=4, selection_rows=8)
    data.tokenizer = module.tokenizer
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)  # type: ignore[attr-defined]
    scales: list[float] = []
    moved: list[float] = []

    class Watch(L.Callback):
        def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
            scales.append(scaler.get_scale())

        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            if broken:
                next(p for p in module.parameters() if p.requires_grad).grad.fill_(math.inf)  # type: ignore[union-attr]

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            moved.append(float(sum(p.detach().double().sum() for n, p in module.named_parameters() if "lora_B" in n)))

    trainer = L.Trainer(
        accelerator="cpu",
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        max_steps=20,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Watch()],
    )
    with pytest.raises(UserError, match="gradient has norm") if broken else pytest.MonkeyPatch.context():
        trainer.fit(module, datamodule=data)
    return module, scales, moved


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_the_loss_scaler_leaves_out_steps_until_its_scale_fits(tiny_backbone: Path, piqa_folder: Path) -> None:
    _, scales, moved = scaled_run(tiny_backbone, piqa_folder, 2.0**24, broken=False)
    fitting = scales[-1]
    skipped = scales.index(fitting)
    assert 0 < skipped < 20
    assert all(position == 0.0 for position in moved[:skipped])
    assert moved[skipped] != 0.0
    assert len(moved) == 20


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_gradients_that_no_scale_makes_finite_stop_the_run(tiny_backbone: Path, piqa_folder: Path) -> None:
    _, scales, moved = scaled_run(tiny_backbone, piqa_folder, 2.0**6, broken=True)
    assert scales == [64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0]
    assert moved == [0.0] * 6

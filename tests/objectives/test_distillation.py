"""The loss with a teacher, against scipy, torch and dense float64."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from scipy.special import rel_entr
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForSequenceClassification

from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.objectives import DistillationConfig, objective_of
from smoa_lightning.objectives.distillation import distilled_loss, divergences
from smoa_lightning.training.module import FineTuneModule
from smoa_lightning.training.teacher import open_teacher, share_weights

from ..training.test_module import Gradients, trainer
from .conftest import head_teacher
from .test_images import build as build_images

# ----------------------------------------------------------------------------------------------------- the formula


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_divergence_is_that_of_scipy_and_torch(temperature: float) -> None:
    student, teacher = logits(7, 11), logits(7, 11, seed=1)
    p, q = (torch.softmax(x / temperature, dim=-1) for x in (teacher, student))
    found = divergences(student, teacher, temperature).double()
    torch.testing.assert_close(found, torch.from_numpy(rel_entr(p.numpy(), q.numpy()).sum(-1)), atol=1e-6, rtol=1e-5)
    mean = F.kl_div(q.log(), p, reduction="batchmean")
    torch.testing.assert_close(found.mean(), mean, atol=1e-6, rtol=1e-5)


def test_columns_that_one_model_lacks_do_not_count() -> None:
    student, teacher = logits(4, 9), logits(4, 12, seed=1)
    assert torch.equal(divergences(student, teacher), divergences(student, teacher[:, :9]))
    assert torch.equal(divergences(teacher, student), divergences(teacher[:, :9], student))


@pytest.mark.parametrize("piece", [2**24, 20])
def test_loss_and_gradient_are_those_of_a_dense_computation(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """dL/db = (1 - w) (softmax(b) - y) + w T (softmax(b / T) - softmax(a / T)); without a label, the first is 0."""
    monkeypatch.setattr("smoa_lightning.objectives.distillation.PIECE", piece)
    student, teacher, labels = logits(7, 11), logits(7, 11, seed=1), torch.tensor([3, 0, -100, 10, -100, 1, 1])
    leaf = student.float().requires_grad_()
    result = distilled_loss(leaf, teacher.float(), labels, DistillationConfig("t", weight=0.3, temperature=2.0))
    result.loss.backward()
    assert result.positions == 7
    p, q = (torch.softmax(x / 2, dim=-1) for x in (teacher, student))
    ce = F.cross_entropy(student, labels, reduction="sum")
    kl = (p * (p.log() - q.log())).sum()
    torch.testing.assert_close(result.loss.double(), 0.7 * ce + 0.3 * 4 * kl, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(
        torch.stack([*result.terms.values()]).double(), torch.stack([ce, kl]), atol=1e-5, rtol=1e-6
    )
    target = F.one_hot(labels.clamp(min=0), 11) - torch.softmax(student, dim=-1)
    expected = -0.7 * target * (labels >= 0)[:, None] + 0.3 * 2 * (q - p)
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad.double(), expected, atol=1e-6, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------- the steps

STUDENTS: dict[str, Callable[[], Any]] = {
    "smoa": lambda: SMoAConfig(r=4, num_subspaces=2),
    "lora": lambda: peft.LoraConfig(r=4),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=3),
    "full": lambda: None,
}


def build(folder: Path, rows: Path, strategy: str, distillation: DistillationConfig, **kwargs: Any) -> Any:
    module = FineTuneModule(BackboneConfig("local", path=str(folder)), STUDENTS[strategy](), distillation=distillation)
    data = TaskDataModule("piqa", "local", path=str(rows), batch_size=6, selection_rows=8, max_length=256, **kwargs)
    data.tokenizer = module.tokenizer
    return module, data


@pytest.mark.parametrize(
    ("strategy", "on", "packing"),
    [("smoa", "response", False), ("lora", "all", False), ("prompt", "all", False), ("full", "all", True)],
)
def test_step_equals_a_dense_computation_over_its_batches(
    strategy: str, on: Any, packing: bool, tiny_backbone: Path, piqa_folder: Path, teacher_folder: Path
) -> None:
    """Two micro-batches with different numbers of positions; row by row in float64, without padding or packing."""
    settings = DistillationConfig(str(teacher_folder), weight=0.4, temperature=2.0, positions=on)
    module, data = build(tiny_backbone, piqa_folder, strategy, settings, packing=packing)
    seen = Gradients()
    accumulating = trainer(accumulate_grad_batches=2, callbacks=[seen])
    accumulating.fit(module, datamodule=data)
    assert module.teacher is None

    reference, _ = build(tiny_backbone, piqa_folder, strategy, settings)
    reference.configure_model()
    network = reference.network.double()
    teacher = AutoModelForCausalLM.from_pretrained(teacher_folder).double()
    ce, kl, count = (*torch.zeros(2, dtype=torch.float64).unbind(), 0)
    for ids, labels in (row for batch in seen.batches for row in rows_of(batch)):
        own, wanted = network(ids[None]).logits[0, -len(ids) : -1], teacher(ids[None]).logits[0, :-1]
        targets = labels[1:]
        places = targets != -100 if on == "response" else torch.ones_like(targets, dtype=torch.bool)
        columns = own.shape[-1]
        p, q = ((x[places][:, :columns] / 2).softmax(-1) for x in (wanted, own))
        ce = ce + F.cross_entropy(own, targets, reduction="sum")
        kl = kl + (p * (p.log() - q.log())).sum()
        count += int(places.sum())
    loss = (0.6 * ce + 0.4 * 4 * kl) / count
    loss.backward()
    logged = accumulating.logged_metrics
    found = torch.stack([logged[f"train/{name}"] for name in ("loss", "ce", "kl")]).double()
    torch.testing.assert_close(found, torch.stack([loss, ce / count, kl / count]).detach(), atol=0, rtol=1e-5)
    expected = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert expected.keys() == seen.gradients.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(seen.gradients[name].double(), gradient, atol=1e-6, rtol=1e-3)


def rows_of(batch: dict[str, Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return token ids and labels of each row of a padded or a packed batch."""
    rows = []
    for line in range(len(batch["input_ids"])):
        ids, labels = batch["input_ids"][line], batch["labels"][line]
        if "position_ids" in batch:
            places = batch["position_ids"][line]
            starts = [n for n, place in enumerate(places.tolist()) if place == 0] + [len(places)]
            parts = [slice(a, b) for a, b in itertools.pairwise(starts) if b - a > 1]
        else:
            parts = [slice(0, int(batch["attention_mask"][line].sum()))]
        rows += [(ids[part], labels[part]) for part in parts]
    return rows


def test_equal_frozen_weights_share_their_memory(tiny_backbone: Path) -> None:
    """Weights with an adapter are shared too; changed ones and trained ones are not."""
    student = AutoModelForCausalLM.from_pretrained(tiny_backbone)
    adapted = peft.get_peft_model(student, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    teacher = AutoModelForCausalLM.from_pretrained(tiny_backbone)
    with torch.no_grad():
        teacher.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    total = sum(p.numel() * 4 for p in teacher.parameters())
    assert share_weights(teacher, adapted) == total - 4 * teacher.model.layers[1].mlp.up_proj.weight.numel()
    assert (
        teacher.model.layers[0].self_attn.q_proj.weight.data_ptr()
        == student.model.layers[0].self_attn.q_proj.weight.data_ptr()
    )
    assert all(torch.equal(p, before[name]) for name, p in teacher.named_parameters())
    full = AutoModelForCausalLM.from_pretrained(tiny_backbone)
    assert share_weights(teacher, full.requires_grad_(True)) == 0


# -------------------------------------------------------------------------------------------------------- other heads


@pytest.mark.parametrize(("task", "outputs"), [("rte", 2), ("stsb", 1)])
def test_classes_and_numbers_follow_a_teacher(
    task: str, outputs: int, encoder: Callable[[str], Path], glue_folder: Path, tmp_path: Path
) -> None:
    """The classes: cross-entropy and KL of torch. A number: squared errors to the label and to the teacher."""
    folder = head_teacher(encoder("bert"), tmp_path / "teacher", num_labels=outputs)
    settings = DistillationConfig(str(folder), weight=0.25, temperature=2.0 if outputs == 2 else 1.0)
    data = TaskDataModule(task, "local", path=str(glue_folder / task), batch_size=8, selection_rows=8, max_length=24)
    backbone = BackboneConfig("local", path=str(encoder("bert")))
    module = FineTuneModule(backbone, peft.LoraConfig(r=2), distillation=settings)
    module.objective = objective_of(data.sets)
    data.tokenizer = module.tokenizer
    seen = Gradients()
    fitting = trainer(callbacks=[seen])
    fitting.fit(module, datamodule=data)
    (batch,) = seen.batches
    reference = FineTuneModule(backbone, peft.LoraConfig(r=2))
    reference.objective = module.objective
    reference.configure_model()
    teacher = AutoModelForSequenceClassification.from_pretrained(folder)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        own, wanted = (model.eval()(**inputs).logits.double() for model in (reference.network, teacher))
    labels = batch["labels"]
    if outputs == 1:
        first, second = F.mse_loss(own[:, 0], labels), F.mse_loss(own[:, 0], wanted[:, 0])
        names, expected = ("squared_error", "teacher_squared_error"), 0.75 * first + 0.25 * second
    else:
        first = F.cross_entropy(own, labels.long())
        second = F.kl_div((own / 2).log_softmax(-1), (wanted / 2).softmax(-1), reduction="batchmean")
        names, expected = ("ce", "kl"), 0.75 * first + 0.25 * 4 * second
    found = torch.stack([fitting.logged_metrics[f"train/{name}"] for name in ("loss", *names)]).double()
    torch.testing.assert_close(found, torch.stack([expected, first, second]), atol=1e-6, rtol=1e-4)


def test_images_follow_a_teacher(vision_model: Callable[[str], Path], image_folder: Path, tmp_path: Path) -> None:
    """The KL over the classes is that of torch; a teacher whose classes have another order is refused."""
    names = {"id2label": dict(enumerate(("blue", "green", "red"))), "label2id": {"blue": 0, "green": 1, "red": 2}}
    teacher = AutoModelForImageClassification.from_pretrained(vision_model("vit"), **names)
    torch.nn.init.normal_(teacher.classifier.weight)
    shutil.copytree(vision_model("vit"), tmp_path / "teacher")
    teacher.save_pretrained(tmp_path / "teacher")
    module, data = build_images(vision_model("vit"), image_folder, peft.LoraConfig(r=2))
    module.distillation = DistillationConfig(str(tmp_path / "teacher"), weight=1.0, temperature=2.0)
    seen = Gradients()
    fitting = trainer(callbacks=[seen])
    fitting.fit(module, datamodule=data)
    reference, _ = build_images(vision_model("vit"), image_folder, peft.LoraConfig(r=2))
    reference.configure_model()
    with torch.no_grad():
        pixels = seen.batches[0]["pixel_values"]
        own, wanted = (m.eval()(pixel_values=pixels).logits.double() for m in (reference.network, teacher))
    expected = F.kl_div((own / 2).log_softmax(-1), (wanted / 2).softmax(-1), reduction="batchmean")
    torch.testing.assert_close(fitting.logged_metrics["train/kl"].double(), expected, atol=1e-6, rtol=1e-4)

    teacher.config.id2label = {0: "red", 1: "green", 2: "blue"}
    teacher.save_pretrained(tmp_path / "teacher")
    with pytest.raises(UserError, match="has the outputs red, green, blue, but the run has blue, green, red"):
        open_teacher(module, 1)

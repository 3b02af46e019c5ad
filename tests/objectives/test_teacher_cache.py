"""Distributions of a teacher on disk: the KL of the k largest probabilities, the folder, and runs that share it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from scipy.special import rel_entr
from transformers import AutoModelForImageClassification

from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.objectives import DistillationConfig, objective_of
from smoa_lightning.objectives.distillation import distilled_loss, divergences
from smoa_lightning.objectives.top_distributions import TopDistributions, top_distributions, top_divergences
from smoa_lightning.training import teacher_cache
from smoa_lightning.training.distribution_files import DistributionFiles
from smoa_lightning.training.module import FineTuneModule
from smoa_lightning.training.teacher import Teacher
from smoa_lightning.training.teacher_cache import open_cache

from ..runs import Killed
from ..training.test_module import Gradients, trainer
from .conftest import head_teacher
from .test_distillation import build, logits
from .test_images import build as build_images

# ----------------------------------------------------------------------------------------------------- the formula


@pytest.mark.parametrize("top", [1, 4, 10, 11, 64])
def test_divergence_and_gradient_are_those_of_a_dense_computation(top: int) -> None:
    """The rest of the vocabulary is one token; with all of it, the divergence is that without a cache."""
    student, teacher = logits(7, 12), logits(7, 11, seed=1)
    leaf = student.float().requires_grad_()
    found = top_divergences(leaf, top_distributions(teacher, 11, top, 2.0, piece=30), 2.0)
    found.sum().backward()
    dense = student.clone().requires_grad_()
    p, q = (torch.softmax(x[:, :11] / 2, dim=-1) for x in (teacher, dense))
    order = p.argsort(dim=-1, descending=True)
    kept, rest = order[:, :top], order[:, top:]
    joint = [torch.cat([x.gather(1, kept), x.gather(1, rest).sum(1, keepdim=True)], 1) for x in (p, q)]
    expected = rel_entr(*(x.detach().numpy() for x in joint)).sum(-1)
    torch.testing.assert_close(found.detach().double(), torch.from_numpy(expected), atol=1e-6, rtol=1e-5)
    full = divergences(student, teacher, 2.0)
    assert (found.detach() <= full + 1e-6).all()
    if top >= 10:  # a rest of one token is known
        torch.testing.assert_close(found.detach(), full, atol=1e-6, rtol=1e-6)
    (joint[0] * (joint[0].clamp(min=1e-300).log() - joint[1].clamp(min=1e-300).log())).sum().backward()
    assert leaf.grad is not None
    assert dense.grad is not None
    torch.testing.assert_close(leaf.grad.double(), dense.grad, atol=1e-6, rtol=1e-5)


def test_mass_is_exact_where_it_is_almost_one() -> None:
    """A rest of 1e-12 is no rounding error of 1 - 1e-12, and a rest of 0 has no gradient that is not a number."""
    teacher = torch.tensor([[30.0, 0.0, -1.0, -2.0], [200.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    top = top_distributions(teacher, 4, 1, 1.0, piece=100)
    rest = torch.softmax(teacher, dim=-1)[:, 1:].sum(-1)
    torch.testing.assert_close(top.log_rest.double().exp(), rest, atol=0, rtol=1e-5)
    torch.testing.assert_close(top.mass, 1 - rest, atol=1e-15, rtol=0)
    student = logits(2, 4).float().requires_grad_()
    nothing = TopDistributions(top.tokens, torch.zeros(2, 1), torch.full((2,), -torch.inf), 4)
    loss = distilled_loss(student, nothing, torch.tensor([0, 1]), DistillationConfig("t", weight=1.0))
    loss.loss.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


# -------------------------------------------------------------------------------------------------------- the folder

FACTS = {"teacher": {"model": "a"}, "training rows": {"piqa": "b"}, "vocabulary": 9}


def files(folder: Path, **changes: Any) -> DistributionFiles:
    return DistributionFiles(folder, {**FACTS, **changes}, "setting")


def test_rows_are_found_in_any_order_and_added_in_pieces(tmp_path: Path) -> None:
    tops = [top_distributions(logits(sum(n), 9, seed=s), 9, 3, 1.0, 100) for s, n in enumerate([(2, 0, 3), (4,)])]
    store = files(tmp_path / "cache")
    with store.writing():
        store.add(np.array([7, 5, -9]), np.array([2, 0, 3]), tops[0])
        store.add(np.array([6]), np.array([4]), tops[1])
    other = files(tmp_path / "cache")
    other.read()
    assert other.lacking(np.array([6, 8, 7])).tolist() == [1]
    assert other.find(np.array([6, 8])) is None
    found = other.find(np.array([-9, 6, 7, 6]))
    assert found is not None
    expected = [tops[0].split(2)[1].log_p, tops[0].split(4)[1].log_p, tops[1].log_p, tops[0].log_p[:2], tops[1].log_p]
    assert torch.equal(found.log_p[:3], tops[0].log_p[2:])
    assert torch.equal(found.log_p[3:], torch.cat(expected[2:]))
    masses = torch.cat([tops[0].mass[2:], tops[1].mass, tops[1].mass]).tolist()
    assert other.masses(np.array([-9, 6, 6])) == pytest.approx((11, np.mean(masses), min(masses)))


def test_other_facts_and_damaged_files_are_refused(tmp_path: Path) -> None:
    store = files(tmp_path)
    with store.writing():
        store.add(np.array([7]), np.array([2]), top_distributions(logits(2, 9), 9, 3, 1.0, 100))
    for change, words in (
        ({"teacher": {"model": "other"}}, "has distributions of another teacher (model): name another folder"),
        ({"training rows": {"boolq": "b"}}, "has distributions of other training rows (boolq, piqa)"),
        ({"vocabulary": 8}, "has distributions of another vocabulary (9 there and 8 here)"),
    ):
        with pytest.raises(UserError) as error:
            files(tmp_path, **change).check()
        assert words in str(error.value)
    piece = next(tmp_path.glob("*.safetensors"))
    content = piece.read_bytes()
    for damage in (content[:-1], content[:-1] + bytes([content[-1] ^ 1]), b""):
        piece.write_bytes(damage)
        with pytest.raises(UserError, match=r"is damaged .*: remove it, and the next run computes its rows again"):
            files(tmp_path).read()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file and not a folder"):
        files(tmp_path / "file").check()


# -------------------------------------------------------------------------------------------------------------- fits


def fit(module: Any, data: Any, **kwargs: Any) -> tuple[dict[str, float], Any]:
    """Return what one optimizer step of two batches logs, and the statistics of the cache."""
    seen = Gradients()
    fitting = trainer(accumulate_grad_batches=2, callbacks=[seen], **kwargs)
    fitting.fit(module, datamodule=data)
    logged = {name: float(fitting.logged_metrics[f"train/{name}"]) for name in ("loss", "ce", "kl")}
    return logged, module.teacher_cache and module.teacher_cache.statistics


@pytest.mark.parametrize(("on", "temperature"), [("response", 2.0), ("all", 1.0)])
def test_fits_share_a_cache_and_need_no_teacher(
    on: Any,
    temperature: float,
    tiny_backbone: Path,
    piqa_folder: Path,
    teacher_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the whole vocabulary the loss is that without a cache; packed rows and other strategies find their rows."""
    plain = DistillationConfig(str(teacher_folder), 0.4, temperature, positions=on)
    expected, _ = fit(*build(tiny_backbone, piqa_folder, "lora", plain))
    cached = replace(plain, cache_folder=str(tmp_path / "cache"), cache_top=1000)
    found, statistics = fit(*build(tiny_backbone, piqa_folder, "lora", cached))
    assert found == pytest.approx(expected, rel=1e-5)
    assert statistics["top"] == 259
    assert statistics["computed_rows"] == statistics["rows"] > 8
    assert statistics["smallest_mass"] == 1

    packed, _ = fit(*build(tiny_backbone, piqa_folder, "lora", plain, packing=True))
    monkeypatch.setattr(Teacher, "load", lambda *arguments: pytest.fail("the teacher was loaded"))
    found, statistics = fit(*build(tiny_backbone, piqa_folder, "lora", cached, packing=True))
    assert found == pytest.approx(packed, rel=1e-5)
    assert statistics["computed_rows"] == 0
    exact = replace(cached, cache_top=259)  # the same distributions, in the same folder
    _, fewer = fit(*build(tiny_backbone, piqa_folder, "smoa", exact, limit_train_rows=20))
    assert fewer["rows"] == 20


def test_a_kill_leaves_whole_pieces_and_the_next_run_adds_the_rest(
    tiny_backbone: Path, piqa_folder: Path, teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece for each batch of the pass; the third write dies."""
    settings = DistillationConfig(str(teacher_folder), cache_folder=str(tmp_path), cache_top=8)
    _, whole = fit(*build(tiny_backbone, piqa_folder, "lora", replace(settings, cache_folder=str(tmp_path / "whole"))))
    assert 0 < whole["smallest_mass"] < whole["mean_mass"] < 1
    monkeypatch.setattr(teacher_cache, "BYTES", 0)
    write, folder = DistributionFiles.add, tmp_path / "top8-temperature1.0"

    def dying(self: DistributionFiles, *arguments: Any) -> None:
        if len(list(folder.glob("*.safetensors"))) == 2:
            (folder / ".piece.safetensors.tmp").write_bytes(b"half")
            raise Killed
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DistributionFiles, "add", dying)
        with pytest.raises(Killed):
            fit(*build(tiny_backbone, piqa_folder, "lora", settings))
    _, rest = fit(*build(tiny_backbone, piqa_folder, "lora", settings))
    assert 0 < rest["computed_rows"] < rest["rows"] == whole["rows"]
    assert (rest["mean_mass"], rest["smallest_mass"]) == pytest.approx((whole["mean_mass"], whole["smallest_mass"]))


def test_other_rows_of_a_split_are_added_and_other_files_refused(
    tiny_backbone: Path, piqa_folder: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    """Another seed holds out other rows. Changed rows, another teacher and another number format are refused."""
    settings = DistillationConfig(str(teacher_folder), cache_folder=str(tmp_path / "cache"))
    _, first = fit(*build(tiny_backbone, piqa_folder, "lora", settings))
    _, second = fit(*build(tiny_backbone, piqa_folder, "lora", settings, seed=1))
    assert 0 < second["computed_rows"] <= 8 < first["computed_rows"] == first["rows"]

    def refusal(settings: DistillationConfig, rows: Path, **kwargs: Any) -> str:
        with pytest.raises(UserError) as error:
            fit(*build(tiny_backbone, rows, "lora", settings), **kwargs)
        return str(error.value)

    shutil.copytree(piqa_folder, tmp_path / "rows")
    file = tmp_path / "rows" / "train.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")
    assert "of other training rows (piqa)" in refusal(settings, tmp_path / "rows")
    assert "of another teacher (config.json, model.safetensors)" in refusal(
        replace(settings, teacher=str(tiny_backbone)), piqa_folder
    )
    assert "of another number format" in refusal(settings, piqa_folder, precision="bf16-mixed")
    facts = next((tmp_path / "cache").rglob("cache.json"))
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"vocabulary": 3}))
    assert "is damaged (its checksum is wrong)" in refusal(settings, piqa_folder)


@pytest.mark.parametrize("task", ["rte", "stsb"])
def test_heads_are_cached_if_they_have_a_distribution(
    task: str, encoder: Callable[[str], Path], glue_folder: Path, tmp_path: Path
) -> None:
    outputs = {"rte": 2, "stsb": 1}[task]
    teacher = head_teacher(encoder("bert"), tmp_path / "teacher", num_labels=outputs)
    found = []
    for folder in (None, str(tmp_path / "cache")):
        settings = DistillationConfig(str(teacher), 0.25, cache_folder=folder)
        module = FineTuneModule(
            BackboneConfig("local", path=str(encoder("bert"))), peft.LoraConfig(r=2), distillation=settings
        )
        data = TaskDataModule(task, "local", path=str(glue_folder / task), max_length=24, batch_size=8)
        module.objective = objective_of(data.sets)
        data.processor = module.processor
        if task == "stsb" and folder is not None:
            with pytest.raises(UserError, match="cache_folder is set, but regression has no distribution"):
                fit(module, data)
            return
        if task == "rte":
            found.append(fit(module, data)[0])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_images_are_found_by_their_pixels(
    vision_model: Callable[[str], Path], image_folder: Path, tmp_path: Path
) -> None:
    names = {"id2label": dict(enumerate(("blue", "green", "red"))), "label2id": {"blue": 0, "green": 1, "red": 2}}
    teacher = AutoModelForImageClassification.from_pretrained(vision_model("vit"), **names)
    torch.nn.init.normal_(teacher.classifier.weight)
    shutil.copytree(vision_model("vit"), tmp_path / "teacher")
    teacher.save_pretrained(tmp_path / "teacher")
    found = []
    for folder in (None, str(tmp_path / "cache")):
        module, data = build_images(vision_model("vit"), image_folder, peft.LoraConfig(r=2))
        module.distillation = DistillationConfig(str(tmp_path / "teacher"), 1.0, 2.0, cache_folder=folder)
        found.append(fit(module, data)[0])
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    data.augmentation = [{"class_path": "torchvision.transforms.RandomHorizontalFlip"}]
    with pytest.raises(
        UserError, match=r"cache_folder is set, but data\.augmentation changes the images in each epoch"
    ):
        open_cache(module, data, "32-true")

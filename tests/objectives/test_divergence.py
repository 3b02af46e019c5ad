"""The KL to a teacher as a score of items, on a teacher whose update is known (``tools.plant_teacher``)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from smoa_lightning.__main__ import main
from smoa_lightning.ablation.study.base_model import scored_with
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.common.errors import UserError
from smoa_lightning.objectives import DistillationConfig
from smoa_lightning.objectives.objective import Objective, check_distillation
from smoa_lightning.training.adapter_folder import load_adapter
from tools.plant_teacher import plant, write

STUDY = Path(__file__).parents[2] / "ablations/calibration/planted_rank.yaml"


def model_of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def teacher(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted") / "teacher"
    write(folder, tiny_backbone, "additive", 2, 8.0, 0)  # large, so that float32 resolves the KL
    return folder


@pytest.mark.parametrize("kind", ["additive", "modulated", "blocks", "circulant"])
def test_a_planted_update_has_its_structure_and_size(kind: str, tiny_backbone: Path) -> None:
    model, before = model_of(tiny_backbone), model_of(tiny_backbone).state_dict()
    updates = plant(model, kind, 2, 0.5)
    for name, update in updates.items():
        weight = before[f"{name}.weight"]
        torch.testing.assert_close(model.get_parameter(f"{name}.weight"), weight + update)
        assert float(update.norm() / weight.detach().norm()) == pytest.approx(0.5, rel=1e-5)
        factor = update / weight
        if kind == "additive":
            assert torch.linalg.matrix_rank(update) == 2
        elif kind == "modulated":
            assert torch.linalg.matrix_rank(factor, rtol=1e-3) == 2
            assert torch.linalg.matrix_rank(update, rtol=1e-3) > 10
        elif kind == "blocks":  # two blocks of (B A) o W: half of the rows and half of the columns each
            assert 0.4 < float((update == 0).float().mean()) < 0.6
        elif update.shape[0] == update.shape[1]:
            torch.testing.assert_close(update.roll((1, 1), (0, 1)), update)  # circulant: constant along diagonals
    for other, message in ((("dense", 2, 0.5), "must be one of additive"), ((kind, 0, 0.5), "must be positive")):
        with pytest.raises(UserError, match=message):
            plant(model, *other)


def divergence(student: Any, teacher: Any, ids: torch.Tensor) -> float:
    """The mean over the next tokens of KL(teacher || student), in float64."""
    with torch.no_grad():
        p, q = (torch.log_softmax(m(input_ids=ids).logits[0, :-1].double(), -1) for m in (teacher, student))
    return float((p.exp() * (p - q)).sum(-1).mean())


def test_items_are_scored_by_the_divergence(
    teacher: Path,
    tiny_backbone: Path,
    tiny_arguments: list[str],
    piqa_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    settings = {"teacher": str(teacher), "weight": 1.0, "positions": "all", "score": True}
    flags = [
        *("--model.distillation", json.dumps(settings), "--run.folder", str(run), "--data.limit_report_rows", "6"),
        *("--trainer.max_steps", "4", "--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1"),
        *("--data.limit_train_rows", "32", "--forgetting.text", "null"),
    ]
    assert main(["fit", *tiny_arguments, *flags]) == 0
    metrics = json.loads((run / "record.json").read_text())["metrics"]
    base, planted, tokenizer = model_of(tiny_backbone), model_of(teacher), AutoTokenizer.from_pretrained(tiny_backbone)
    student, _ = load_adapter(run)
    rows = [json.loads(line) for line in (piqa_folder / "validation.jsonl").read_text().splitlines()]
    for model, part, file in ((base, "base", "base_items.jsonl"), (student, "report", "items.jsonl")):
        items = [json.loads(line) for line in (run / file).read_text().splitlines()]
        found = []
        for item in items:
            row = rows[item["row"]]
            text = f"Question: {row['goal']}\nAnswer: {row['sol1'] if row['label'] == 0 else row['sol2']}"
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            found.append(divergence(model, planted, ids))
            assert item["kl_positions"] == ids.shape[1] - 1
            assert item["kl"] / item["kl_positions"] == pytest.approx(found[-1], rel=1e-3)
        assert metrics[f"{part}/kl"] == pytest.approx(sum(found) / 6, rel=1e-3)
        assert metrics[f"{part}/kl_stderr"] > 0
    assert metrics["report/kl"] < metrics["base/kl"]  # it has learned from the teacher
    assert "selection/kl" in metrics

    again = ["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
    assert main([*again, "--run.folder", str(tmp_path / "same")]) == 0
    other = tmp_path / "other"  # another teacher in the place of the first one
    shutil.copytree(tiny_backbone, other)
    moved = settings | {"teacher": str(other)}
    assert main([*again, "--run.folder", str(tmp_path / "t"), "--model.distillation", json.dumps(moved)]) == 2
    assert "began with different files of its teacher" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


def test_each_teacher_has_a_baseline_and_a_base_model_of_its_own() -> None:
    study = load_study([STUDY])
    assert {study.baselines[cell.name] for cell in study.cells} == {
        f"truth={truth},method=lora" for truth in [value.label for value in study.axes[0].values]
    }
    assert set(scored_with(study).values()) == set(study.baselines.values())
    assert study.objective.direction == "minimize"


def test_a_number_has_no_divergence() -> None:
    objective = Objective("regression", lambda network, batch: (torch.zeros(()), 0), distilled=lambda *given: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match=r"model\.distillation\.score is true, but regression has no distribution"):
        check_distillation(objective, DistillationConfig("runs/teacher", score=True))

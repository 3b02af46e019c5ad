"""Trained heads after training: loaded and exported as they were scored, and no part of the update of the backbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

from smoa_lightning import load_adapter
from smoa_lightning.__main__ import main
from smoa_lightning.backbones.heads import Head, in_new_head, mark_head
from smoa_lightning.common.errors import UserError

from ..conftest import EXPERIMENTS
from ..runs import only_run
from .conftest import head_teacher
from .test_run import arguments

Run = Callable[..., Path]


@pytest.fixture
def trained(encoder: Callable[[str], Path], glue_folder: Path, tmp_path: Path) -> Run:
    """Train an encoder, and return the folder of the run."""

    def fit(adapter: str, *more: str, task: str = "cola", root: str = "runs") -> Path:
        flags = arguments(encoder("bert"), glue_folder / task, tmp_path / root, task)
        flags += ["--config", str(EXPERIMENTS / f"adapters/{adapter}.yaml"), "--data.selection_rows", "12", *more]
        assert main(["fit", *flags, "--model.head_lr", "3e-2"]) == 0
        return only_run(tmp_path / root)

    return fit


def record_of(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "record.json").read_text())
    return record


def likelihoods(run: Path, model: Any, tokenizer: Any, rows: Path) -> list[tuple[list[float], list[float]]]:
    """Return the log-likelihoods of both classes of each row, in ``items.jsonl`` and by a model."""
    texts = [json.loads(line)["sentence"] for line in (rows / "validation.jsonl").read_text().splitlines()]
    items = [json.loads(line) for line in (run / "items.jsonl").read_text().splitlines()]
    with torch.no_grad():
        found = [model(**tokenizer(texts[i["row"]], return_tensors="pt")).logits.float().log_softmax(-1) for i in items]
    return [(item["log_likelihood"], each[0].tolist()) for item, each in zip(items, found, strict=True)]


@pytest.mark.parametrize("adapter", ["lora", "frozen", "full"])
def test_a_head_on_a_half_precision_backbone_is_loaded_in_float32(
    adapter: str, trained: Run, glue_folder: Path, tmp_path: Path
) -> None:
    """It was trained in float32, so a head in bfloat16 would be another model than the one that was scored."""
    run = trained(adapter, "--model.backbone.dtype", "bfloat16", "--data.eval_batch_size", "1")
    model, tokenizer = load_adapter(run)
    assert model.dtype == torch.bfloat16
    for recorded, found in likelihoods(run, model, tokenizer, glue_folder / "cola"):
        assert found == pytest.approx(recorded, abs=1e-6)
    file = run / "adapter" / "best" / ("adapter_model.safetensors" if adapter == "lora" else "model.safetensors")
    saved = {name.rpartition("classifier.")[2]: t for name, t in load_file(file).items() if "classifier." in name}
    assert main(["export", str(run), "--output", str(tmp_path / "merged"), "--dtype", "float32"]) == 0
    exported = load_file(tmp_path / "merged" / "model.safetensors")
    assert not torch.equal(saved["weight"], saved["weight"].bfloat16().float())
    for name in ("weight", "bias"):
        assert torch.equal(exported[f"classifier.{name}"], saved[name])


@pytest.mark.parametrize(("adapter", "seed"), [("lora", 0), ("full", 3)])
def test_a_cut_update_keeps_the_head(
    adapter: str, seed: int, trained: Run, encoder: Callable[[str], Path], glue_folder: Path, tmp_path: Path
) -> None:
    """Rank 0 is the base model with the trained head, which full fine-tuning starts from values of the seed."""
    run = trained(adapter, "--seed_everything", str(seed))
    assert main(["rank", str(run), "--truncate", "--output", str(tmp_path / "cut")]) == 0
    found = json.loads((tmp_path / "cut" / "truncation.json").read_text())[0]
    assert {"classifier.weight", "classifier.bias"} <= set(found["not_cut"])
    model, tokenizer = load_adapter(run)
    head = model.get_base_model().classifier.modules_to_save["default"] if adapter == "lora" else model.classifier
    base = AutoModelForSequenceClassification.from_pretrained(encoder("bert")).eval()
    others = {name: p for name, p in model.named_parameters() if name in found["not_cut"]}  # biases, norms, embeddings
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            parameter.copy_(others.get(name, parameter))
    base.classifier.load_state_dict(head.state_dict())
    labels = [json.loads(line)["label"] for line in (run / "items.jsonl").read_text().splitlines()]
    pairs = likelihoods(run, base, tokenizer, glue_folder / "cola")
    nll = -sum(each[label] for (_, each), label in zip(pairs, labels, strict=True)) / len(labels)
    assert found["scores"][0]["metrics"]["nll"] == pytest.approx(nll, abs=1e-5)


def test_the_rank_of_a_run_counts_no_head(trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora, full = trained("lora"), trained("full", root="full")
    head_only = trained("frozen", root="frozen")
    for run in (lora, full):
        assert main(["rank", str(run), "--layers", "99", "--output", str(tmp_path / "rank")]) == 0
        found = json.loads((tmp_path / "rank" / "rank.json").read_text())[0]
        assert found["trainable"] == record_of(run)["metrics"]["parameters/trainable"]
        assert not [layer for layer in found["layers"] if "classifier" in layer["name"]]
    capsys.readouterr()
    assert main(["rank", str(head_only)]) == 2
    assert "only the new head was trained, so the backbone has no update" in capsys.readouterr().err
    assert main(["rank", str(head_only), "--truncate"]) == 2
    assert "rank: frozen changes no weight" in capsys.readouterr().err
    metrics = record_of(head_only)["metrics"]
    assert metrics["rank/effective_mean"] == -1  # not measured
    size = (head_only / "adapter" / "best" / "model.safetensors").stat().st_size
    assert metrics["parameters/adapter_bytes"] == pytest.approx(size, rel=0.1)
    assert main(["export", str(head_only), "--output", str(tmp_path / "out"), "--format", "adapter"]) == 2
    assert "a run that trains a new head alone has no adapter: use --format merged" in capsys.readouterr().err


def test_the_last_adapter_has_no_scores_of_the_best_one(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("lora", "--trainer.val_check_interval", "1")
    last = run / "adapter" / "last"
    best = json.loads((run / "adapter" / "best" / "smoa_lightning.json").read_text())["step"]
    assert best < json.loads((last / "smoa_lightning.json").read_text())["step"]
    assert main(["rank", str(last), "--truncate", "--output", str(tmp_path / "cut")]) == 0
    assert main(["export", str(last), "--output", str(tmp_path / "merged")]) == 0
    facts = json.loads((tmp_path / "merged" / "export.json").read_text())["run_metrics"]
    assert {name.split("/")[0] for name in facts} == {"base"}
    assert main(["export", str(run), "--output", str(tmp_path / "best")]) == 0
    facts = json.loads((tmp_path / "best" / "export.json").read_text())["run_metrics"]
    assert facts["report/nll"] == record_of(run)["metrics"]["report/nll"]


def test_a_loaded_model_needs_the_head(trained: Run, encoder: Callable[[str], Path]) -> None:
    run = trained("lora")
    plain = AutoModel.from_pretrained(encoder("bert"))
    with pytest.raises(UserError, match="but a BertModel has none: load the model with AutoModelForSeq"):
        load_adapter(run, plain)
    model, _ = load_adapter(run, AutoModelForSequenceClassification.from_pretrained(encoder("bert")))
    config = model.get_base_model().config
    assert config.id2label == {0: "unacceptable", 1: "acceptable"}
    assert config.problem_type == "single_label_classification"


def test_runs_with_different_teachers_are_not_compared_by_kl(
    trained: Run, encoder: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same teacher in another folder is no other teacher."""
    runs = []
    for name, std in (("a", 1.0), ("b", 2.0), ("a2", 1.0)):
        folder = head_teacher(encoder("bert"), tmp_path / name, initializer_range=std)
        if name == "b":
            weights = AutoModelForSequenceClassification.from_pretrained(folder)
            torch.nn.init.ones_(weights.classifier.bias)
            weights.save_pretrained(folder)
        settings = json.dumps({"teacher": str(folder), "weight": 0.5, "score": True})
        runs.append(str(trained("lora", "--model.distillation", settings, root=f"runs_{name}")))
    capsys.readouterr()
    assert main(["compare", runs[0], runs[2], "--metric", "kl", "--output", str(tmp_path / "same")]) == 0
    assert main(["compare", *runs[:2], "--metric", "kl", "--output", str(tmp_path / "kl")]) == 2
    assert "--metric kl: kl is not compared: the runs have different teachers" in capsys.readouterr().err
    assert main(["compare", *runs[:2], "--output", str(tmp_path / "other")]) == 0
    assert "kl is not compared: the runs have different teachers" in capsys.readouterr().out


def test_the_page_of_a_regression_shows_numbers(trained: Run, tmp_path: Path) -> None:
    run = trained("lora", task="stsb")
    items = [json.loads(line) for line in (run / "items.jsonl").read_text().splitlines()]
    assert main(["report", str(run)]) == 0
    page = (run / "report" / "run.html").read_text()
    assert "(an empty reply)" not in page
    assert "stsb, numbers: 24 rows" in page
    assert f"{items[0]['prediction']:.2f}" in page
    again = trained("lora", "--seed_everything", "1", task="stsb", root="second")
    assert main(["compare", str(run), str(again), "--output", str(tmp_path / "compared")]) == 0
    assert "mse" in (tmp_path / "compared" / "rows.csv").read_text()


def test_names_of_a_head_are_whole_words(encoder: Callable[[str], Path]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(encoder("bert"))
    mark_head(model, Head("sequence_classification", ("no", "yes")))
    assert in_new_head(model, "classifier")
    assert in_new_head(model, "classifier.weight")
    assert not in_new_head(model, "classifier2.weight")
    assert not in_new_head(model, "bert.classifier")

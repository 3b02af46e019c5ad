"""Prompts and scores are those of EleutherAI's lm-evaluation-harness, from a file that the harness made (golden.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate
from smoa_lightning.backbones.tokenizer import load_tokenizer
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.evaluation.choice import ChoiceEvaluator
from smoa_lightning.evaluation.prefix_trees import shares_prefixes
from smoa_lightning.evaluation.scoring import row_log_likelihoods, target_logits

from .golden import KINDS, write

EIGHT = ("boolq", "piqa", "social_i_qa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")

GOLDEN = json.loads((Path(__file__).parent / "golden_scores.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    write(folder)
    return folder


def test_the_file_covers_the_eight() -> None:
    assert set(GOLDEN) == set(KINDS)
    assert all(set(GOLDEN[kind]["tasks"]) == set(EIGHT) for kind in KINDS)
    assert all(len(task["requests"]) == 5 for kind in KINDS for task in GOLDEN[kind]["tasks"].values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", EIGHT)
def test_scores_of_the_harness(kind: str, task: str, folder: Path) -> None:
    golden = GOLDEN[kind]["tasks"][task]
    count = len(golden["requests"])
    rows = folder / f"{kind}-{task}.jsonl"
    lines = (folder / "rows" / task / "validation.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    rows.write_text("\n".join(lines), encoding="utf-8")
    location = locate(config := BackboneConfig(source="local", path=str(folder / kind)))
    data = TaskDataModule(task, "local", path={"validation": str(rows)}, report_split="validation", eval_batch_size=3)
    data.tokenizer = load_tokenizer(location)
    data.setup("test")
    requests = [[list(pair) for pair in data.example("report", row).pairs] for row in range(count)]
    assert requests == golden["requests"]

    model, evaluator = load_model(config, location).eval(), ChoiceEvaluator()
    assert shares_prefixes(model, data.encoding.max_length)
    for batch in data.test_dataloader():
        with torch.no_grad():
            plain = row_log_likelihoods(*target_logits(model, batch))[0].split(batch["num_choices"].tolist())
            records = evaluator.score(model, batch)
        for record, by_rows in zip(records, plain, strict=True):
            # sums of up to 70 float32 terms of size 7, at another batch size than the harness's
            for found in (record["log_likelihood"], by_rows.tolist()):
                assert found == pytest.approx(golden["log_likelihood"][record["row"]], abs=1e-3)
    metrics = evaluator.compute()
    assert metrics["acc"] == pytest.approx(golden["metrics"]["acc"])
    if "acc_bytes" in golden["metrics"]:  # the harness's name of what is divided by bytes
        assert metrics["acc_norm"] == pytest.approx(golden["metrics"]["acc_bytes"])

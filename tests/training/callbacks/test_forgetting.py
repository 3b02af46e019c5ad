"""Likelihood of general text against transformers' own loss; before and after, adapter on and off."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.encoding.items import TokenRow
from smoa_lightning.embedded import backbone_folder, held_out_text
from smoa_lightning.evaluation.scoring import target_logits
from smoa_lightning.records.items import read_run
from smoa_lightning.training.callbacks import forgetting
from smoa_lightning.training.callbacks.forgetting import (
    Forgetting,
    document_scores,
    documents,
    general_metrics,
    text_rows,
)
from smoa_lightning.training.module import FineTuneModule

TEXTS = ["A stone sinks.", "The quick brown fox jumps over the lazy dog, and then it sleeps.", "x", "Näh!\nTwo lines."]


def general_perplexity(model: Any, rows: list[TokenRow], batch_tokens: int) -> dict[str, float]:
    return general_metrics(document_scores(model, rows, batch_tokens))


def reference(model: Any, tokenizer: Any, texts: list[str], start: int, max_length: int) -> float:
    """Return exp of the mean of transformers' own loss, weighted by tokens, one text at a time in float64."""
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([[start, *tokenizer(text, add_special_tokens=False).input_ids][:max_length]])
        with torch.no_grad():
            total += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return math.exp(total / count)


@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
@pytest.mark.parametrize("max_length", [2, 12, 256])
def test_perplexity_is_that_of_transformers(
    tiny_backbone: Path, byte_tokenizer: Any, batch_tokens: int, max_length: int
) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_backbone).eval()
    rows = text_rows(byte_tokenizer, TEXTS, max_length)
    assert [len(row) for row in rows] == [min(max_length, 1 + len(text.encode())) for text in TEXTS]
    assert all(row.ids[0] == byte_tokenizer.bos_token_id for row in rows)
    found = general_perplexity(model, rows, batch_tokens)["general_perplexity"]
    expected = reference(model.double(), byte_tokenizer, TEXTS, byte_tokenizer.bos_token_id, max_length)
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_embedded_backbone_knows_the_embedded_text() -> None:
    model = AutoModelForCausalLM.from_pretrained(backbone_folder(), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(backbone_folder())
    texts = documents("embedded", 40)
    assert texts == held_out_text()[:40]
    rows = text_rows(tokenizer, texts, 256)
    found = general_perplexity(model, rows, 4096)
    expected = reference(model.double(), tokenizer, texts, rows[0].ids[0], 256)
    assert found["general_perplexity"] == pytest.approx(expected, rel=1e-4)
    assert found["general_perplexity_stderr"] > 0
    backwards = text_rows(tokenizer, [" ".join(text.split()[::-1]) for text in texts], 256)
    assert general_perplexity(model, backwards, 4096)["general_perplexity"] > 1.5 * expected


def test_an_empty_document_is_left_out(byte_tokenizer: Any) -> None:
    assert len(text_rows(byte_tokenizer, ["a", "", "b"], 8)) == 2


# ---- the callback


def logged(
    callback: Forgetting,
    backbone: Path,
    rows: Path,
    change: bool = False,
    base_model: bool = False,
    folder: Path | None = None,
) -> dict[str, float]:
    """Score the report rows and return what was logged."""
    module = FineTuneModule(
        BackboneConfig(source="local", path=str(backbone)), LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    )
    data = TaskDataModule("piqa", "local", path=str(rows), selection_rows=8, cache=False)
    data.tokenizer = module.tokenizer
    module.configure_model()
    if change:
        with torch.no_grad():
            for name, parameter in module.network.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.5)
    module.scoring_base_model = base_model
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[callback],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.test(module, datamodule=data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items() if "general" in name}


workers = pytest.mark.filterwarnings("ignore:The 'test_dataloader' does not have many workers")


@workers
def test_it_is_logged_before_and_after(
    tiny_backbone: Path, piqa_folder: Path, byte_tokenizer: Any, tmp_path: Path
) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_backbone).double().eval()
    expected = reference(model, byte_tokenizer, held_out_text()[:9], byte_tokenizer.bos_token_id, 40)
    callback = Forgetting(max_documents=9, max_length=40)
    before = logged(callback, tiny_backbone, piqa_folder, change=True, base_model=True, folder=tmp_path)
    assert before.keys() == {
        f"base/general_{name}" for name in ("perplexity", "perplexity_stderr", "nll", "nll_stderr")
    }
    each = [reference(model, byte_tokenizer, [text], byte_tokenizer.bos_token_id, 40) for text in held_out_text()[:9]]
    scores = read_run(tmp_path, ["acc", "general_nll"], {}, base=True)[0]["general_nll"]
    assert list(scores.values()) == pytest.approx(np.log(each), rel=1e-4)  # document by document
    assert before["base/general_nll"] == pytest.approx(np.mean(np.log(each)), rel=1e-4)
    assert before["base/general_perplexity"] == pytest.approx(expected, rel=1e-4)
    after = logged(callback, tiny_backbone, piqa_folder, change=True, folder=tmp_path)
    trained = read_run(tmp_path, ["general_nll"], {})[0]["general_nll"]
    assert after["report/general_nll"] == pytest.approx(np.mean(list(trained.values())), rel=1e-6)
    assert trained.keys() == scores.keys()
    assert abs(after["report/general_perplexity"] / expected - 1) > 0.001
    same = logged(callback, tiny_backbone, piqa_folder, folder=tmp_path)  # an adapter that starts at zero
    assert same["report/general_perplexity"] == pytest.approx(expected, rel=1e-4)


@workers
def test_the_signal_sigterm_ends_it_after_a_batch(
    tiny_backbone: Path, piqa_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scored: list[int] = []

    def terminated(network: Any, inputs: dict[str, torch.Tensor]) -> Any:
        scored.append(len(inputs["input_ids"]))
        os.kill(os.getpid(), signal.SIGTERM)
        return target_logits(network, inputs)

    monkeypatch.setattr(forgetting, "target_logits", terminated)
    caplog.set_level("INFO", "smoa_lightning")
    with pytest.raises(SIGTERMException):
        logged(Forgetting(max_documents=3, batch_tokens=1), tiny_backbone, piqa_folder, base_model=True)
    assert scored == [1]
    assert "scoring 3 general texts" in caplog.text
    assert "--forgetting.text null none" in caplog.text


@workers
def test_it_can_be_switched_off(tiny_backbone: Path, piqa_folder: Path) -> None:
    assert logged(Forgetting(text=None), tiny_backbone, piqa_folder) == {}


def test_an_adapter_changes_the_value(tiny_backbone: Path, byte_tokenizer: Any) -> None:
    model = get_peft_model(LlamaForCausalLM.from_pretrained(tiny_backbone), LoraConfig(r=2, init_lora_weights=False))
    rows = text_rows(byte_tokenizer, TEXTS, 64)
    model.eval()
    on = general_perplexity(model, rows, 4096)
    with model.disable_adapter():
        off = general_perplexity(model, rows, 4096)
    assert on["general_perplexity"] != pytest.approx(off["general_perplexity"], rel=1e-3)


# ---- files


def test_paragraphs_are_documents(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("\ufeffOne line.\nTwo lines.\n\n  \nAnother.\n\n\n", encoding="utf-8")
    assert documents(str(file), 10) == ["One line.\nTwo lines.", "Another."]
    assert documents(str(file), 1) == ["One line.\nTwo lines."]


def test_jsonl_has_a_field_text(tmp_path: Path) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text('{"text": "Näh", "id": 1}\n\n{"text": " "}\n{"text": "b"}\n', encoding="utf-8")
    assert documents(str(file), 10) == ["Näh", "b"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", b"\n \n", r"a\.txt has no text"),
        ("a.txt", b"\xff", r"a\.txt is not valid UTF-8"),
        ("a.md", b"text", r"a\.md must end in \.txt .* or \.jsonl"),
        ("a.jsonl", b'{"text": "a"}\n{"tex', r"a\.jsonl, line 2: not valid JSON"),
        ("a.jsonl", b'{"content": "a"}\n', r"a\.jsonl, line 1: there is no field 'text'"),
        ("a.jsonl", b'{"text": 3}\n', r"a\.jsonl, line 1: there is no field 'text'"),
        (
            "a.jsonl",
            b'{"text": "a", "n": ' + b"1" * 5000 + b"}",
            r"a\.jsonl, line 1: not valid JSON \(Exceeds the limit",
        ),
        ("a.jsonl", b'{"text": "a", "n": ' + b"[" * 10**5, r"a\.jsonl, line 1: not valid JSON"),
        ("a.jsonl", b'{"text": "a \\ud800 b"}\n', r"a\.jsonl, line 1: field 'text' holds half a character"),
        ("a.jsonl", b"", r"a\.jsonl has no text"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        Forgetting(str(tmp_path / name)).setup(None, None, "fit")  # type: ignore[arg-type]


def test_a_missing_file_and_wrong_numbers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the file .*none\.txt does not exist"):
        Forgetting(str(tmp_path / "none.txt")).setup(None, None, "fit")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"forgetting\.max_length is 1, but must be at least 2"):
        Forgetting(max_length=1)


def test_only_the_first_documents_are_read(tmp_path: Path) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text(json.dumps({"text": "a"}) + "\nbroken\n")
    assert documents(str(file), 1) == ["a"]

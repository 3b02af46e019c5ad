from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from smoa_lightning.common.errors import UserError
from tools.embedded import glue, rebuild_encoder

from .test_rebuild import digests

TINY = rebuild_encoder.EncoderRecipe(
    hidden=16, layers=1, heads=2, intermediate=24, documents=60, glue_documents=40, batch=4, steps=3
)


@pytest.fixture(autouse=True)
def _restore_torch():
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def test_two_rebuilds_write_identical_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        rebuild_encoder.rebuild(tmp_path / name, TINY)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]  # no temporary folder is left
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "one")
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "one"))
    assert model.config.hidden_dropout_prob == 0.1
    assert json.loads((tmp_path / "one" / "provenance.json").read_text())["recipe"]["steps"] == 3


def test_texts_of_glue_have_no_row_of_another_split() -> None:
    texts = set(glue.documents(2000))
    for task, fields in (("sst2", ("sentence",)), ("rte", ("sentence1", "sentence2"))):
        for split in ("validation", "test"):
            assert not texts & {" ".join(row[name] for name in fields) for row in glue.rows(task, split)}


@pytest.mark.parametrize("option", ["--steps", "--threads"])
def test_numbers_below_one_are_refused(option: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{option} is 0"):
        rebuild_encoder.main([option, "0", "--output", str(tmp_path / "never")])
    assert not (tmp_path / "never").exists()

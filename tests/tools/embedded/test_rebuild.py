from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from smoa_lightning.common.errors import UserError
from tools.embedded import corpus, rebuild

TINY = rebuild.Recipe(
    vocabulary=300,
    hidden=16,
    layers=1,
    heads=2,
    key_value_heads=1,
    intermediate=24,
    documents=300,
    settling_documents=100,
    settling_steps=2,
    batch=4,
    steps=3,
    threads=1,
)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(autouse=True)
def _restore_torch():
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def test_two_rebuilds_write_identical_bytes(tmp_path):
    for name in ("one", "two"):
        rebuild.rebuild(tmp_path / name, TINY)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= set(digests(tmp_path / "one"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]  # no temporary folder is left
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    assert model.config.vocab_size == len(tokenizer) == 300
    assert model.dtype == torch.bfloat16
    provenance = json.loads((tmp_path / "one" / "provenance.json").read_text())
    assert provenance["recipe"]["steps"] == 3
    assert provenance["corpus"]["sha256"] == corpus.checksum(corpus.documents(300))


def test_another_seed_gives_other_weights(tmp_path):
    rebuild.rebuild(tmp_path / "folder", TINY)
    before = digests(tmp_path / "folder")
    other = rebuild.Recipe(**{**TINY.__dict__, "seed": 1})
    rebuild.rebuild(tmp_path / "folder", other)  # replaces what stands there
    after = digests(tmp_path / "folder")
    assert before["model.safetensors"] != after["model.safetensors"]
    assert before["tokenizer.json"] == after["tokenizer.json"]


def test_settling_changes_the_weights_and_nothing_else(tmp_path):
    rebuild.rebuild(tmp_path / "settled", TINY)
    rebuild.rebuild(tmp_path / "not", rebuild.Recipe(**{**TINY.__dict__, "settling_peak": 0.0}))
    one, two = digests(tmp_path / "settled"), digests(tmp_path / "not")
    assert {name for name in one if one[name] != two[name]} == {"model.safetensors", "provenance.json"}


def test_pack_keeps_documents_whole():
    windows = rebuild.pack([[1, 2, 3], [4, 5], [6], [7, 8, 9, 10, 11]], 4, 0)
    assert windows.tolist() == [[1, 2, 3, 0], [4, 5, 6, 0], [7, 8, 9, 10]]


def test_rate_rises_and_falls():
    rates = [rebuild.rate(step, 100, 0.1, 1.0) for step in range(100)]
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(1 / 90)


@pytest.mark.parametrize("option", ["--steps", "--threads"])
def test_numbers_below_one_are_refused(option, tmp_path):
    with pytest.raises(UserError, match=f"{option} is 0"):
        rebuild.main([option, "0", "--output", str(tmp_path / "never")])
    assert not (tmp_path / "never").exists()

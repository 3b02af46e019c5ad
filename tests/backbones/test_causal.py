"""Only causal language models with a tokenizer are backbones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedTokenizerFast

from smoa_lightning.backbones.backbone import BackboneConfig, Location, locate, read_architecture
from smoa_lightning.backbones.causal import check_causal
from smoa_lightning.backbones.limits import limits_of_architecture
from smoa_lightning.backbones.tokenizer import load_tokenizer
from smoa_lightning.common.errors import UserError


@pytest.mark.parametrize("kind", ["bert", "bert-generation", "roberta", "distilbert", "modernbert", "xlm"])
def test_an_encoder_is_refused(kind: str, tmp_path: Path) -> None:
    CONFIG_MAPPING[kind]().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=rf"is an encoder \('{kind}'\): .* would see itself; choose a decoder"):
        read_architecture(Location("local", str(tmp_path)))


@pytest.mark.parametrize(("kind", "settings"), [("bert", {"is_decoder": True}), ("xlm", {"causal": True}), ("gpt2", {}),
                                                ("bert-generation", {"is_decoder": True}), ("llama", {}),
                                                ("mamba", {}), ("gemma3", {})])  # fmt: skip
def test_a_decoder_is_accepted(kind: str, settings: dict[str, Any]) -> None:
    check_causal(CONFIG_MAPPING[kind](**settings), kind)


@pytest.mark.parametrize("kind", ["xlnet", "cpmant"])
def test_a_model_that_sees_later_tokens_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match=rf"is not causal \('{kind}'\): each token sees the tokens after it.* Llama"):
        check_causal(CONFIG_MAPPING[kind](), kind)


@pytest.mark.parametrize(("positions", "expected"), [(-1, None), (0, None), (None, None), (64, 64)])
def test_positions_below_one_are_no_limit(positions: int | None, expected: int | None) -> None:
    config = CONFIG_MAPPING["mamba"]()
    config.max_position_embeddings = positions
    assert limits_of_architecture(config).positions == expected


@pytest.mark.parametrize("kind", ["t5", "bart", "pegasus"])
def test_an_encoder_decoder_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match=rf"is an encoder-decoder \('{kind}'\)"):
        check_causal(CONFIG_MAPPING[kind](), kind)


def test_a_model_of_images_is_refused() -> None:
    with pytest.raises(UserError, match="of the kind 'vit', which has no causal language model"):
        check_causal(AutoConfig.for_model("vit"), "x")


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "bloom"])  # transformers makes up a tokenizer for two
def test_a_folder_without_tokenizer_is_refused(kind: str, tmp_path: Path) -> None:
    CONFIG_MAPPING[kind]().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no tokenizer: copy the tokenizer files .* tokenizer\.json"):
        load_tokenizer(Location("local", str(tmp_path)))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    with pytest.raises(UserError, match="has no tokenizer"):
        load_tokenizer(Location("local", str(tmp_path)))


def with_tokens(folder: Path, tokenizer: PreTrainedTokenizerFast, **special: str) -> Location:
    """Save a copy of a tokenizer with further special tokens into a folder."""
    own = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **special)
    own.save_pretrained(folder)
    return locate(BackboneConfig("local", path=str(folder)))


def test_a_pad_token_beyond_the_embedding_is_not_used(
    tmp_path: Path, tiny_backbone: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    shutil.copy(tiny_backbone / "config.json", tmp_path)
    location = with_tokens(tmp_path, byte_tokenizer, eos_token="</s>", pad_token="[PAD]")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).pad_token_id == 259
    assert load_tokenizer(location).pad_token_id == 2


def test_an_eos_token_beyond_the_embedding_is_refused(
    tmp_path: Path, tiny_backbone: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    shutil.copy(tiny_backbone / "config.json", tmp_path)
    location = with_tokens(tmp_path, byte_tokenizer, eos_token="<|end|>", pad_token="<pad>")
    with pytest.raises(UserError, match=r"the token '<\|end\|>' has id 259, .* has only 259 rows \(ids up to 258\)"):
        load_tokenizer(location)

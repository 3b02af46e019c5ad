"""Where backbones come from, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from smoa_lightning.backbones.backbone import (
    BackboneConfig,
    check_loadable,
    load_model,
    load_skeleton,
    locate,
    provenance,
)
from smoa_lightning.backbones.tokenizer import load_tokenizer
from smoa_lightning.common.errors import UserError


def test_auto_without_a_hub_is_embedded() -> None:
    """The tests run with HF_HUB_OFFLINE=1 and an empty cache of this model."""
    location = locate(BackboneConfig(name="nobody/nothing-of-this-name"))
    assert location.source == "embedded"
    model = load_model(BackboneConfig("embedded"), location)
    assert sum(p.numel() for p in model.parameters()) < 3_000_000
    assert provenance(location)["sha256"]["model.safetensors"]


def test_hub_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(UserError, match="nobody/nothing"):
        locate(BackboneConfig("hub", name="nobody/nothing"))


def test_local_without_a_model_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.backbone\.path is not set"):
        locate(BackboneConfig("local"))
    with pytest.raises(UserError, match=r"no config\.json"):
        locate(BackboneConfig("local", path=str(tmp_path)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype_is_that_of_the_config(dtype: str, tiny_backbone: Path) -> None:
    config = BackboneConfig("local", path=str(tiny_backbone), dtype=dtype)  # type: ignore[arg-type]
    model = load_model(config, locate(config))
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}


def test_skeleton_has_shapes_and_no_weights(tiny_backbone: Path) -> None:
    config = BackboneConfig("local", path=str(tiny_backbone))
    skeleton, model = load_skeleton(config, locate(config)), load_model(config, locate(config))
    assert all(p.is_meta for p in skeleton.parameters())
    assert {n: p.shape for n, p in skeleton.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


def test_tokenizer_without_pad_pads_with_eos_and_without_eos_is_refused(
    tmp_path: Path, tiny_backbone: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    for name, special in (("unpadded", {"eos_token": "</s>"}), ("endless", {"pad_token": "<pad>"})):
        shutil.copytree(tiny_backbone, tmp_path / name)
        own = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer.backend_tokenizer, bos_token="<s>", **special)
        own.save_pretrained(tmp_path / name)
    tokenizer = load_tokenizer(locate(BackboneConfig("local", path=str(tmp_path / "unpadded"))))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    with pytest.raises(UserError, match="no EOS token"):
        load_tokenizer(locate(BackboneConfig("local", path=str(tmp_path / "endless"))))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop"])
def test_a_file_of_a_model_that_is_not_regular_is_refused(
    kind: str, name: str, tmp_path: Path, tiny_backbone: Path
) -> None:
    folder = shutil.copytree(tiny_backbone, tmp_path / "model")
    place = folder / name
    place.unlink()
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero" if kind == "device" else place)
    with pytest.raises(UserError, match=f"{name} is not a regular file"):
        locate(BackboneConfig("local", path=str(folder)))


@pytest.mark.parametrize(("change", "kind"), [
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "ImportError"), ({"hidden_act": "nope"}, "KeyError"),
    ({"quantization_config": {"foo": 4}}, "ValueError"), ({"hidden_size": -32}, "RuntimeError"),
    ({"rope_parameters": {"rope_type": "zzz", "rope_theta": 10000.0}}, "KeyError"),
    ({"dtype": "float7"}, "AttributeError"), ({"num_attention_heads": 0}, "ZeroDivisionError"), (None, "TypeError"),
])  # fmt: skip
def test_what_transformers_raises_about_a_config_is_one_sentence_before_weights_are_read(
    change: dict[str, Any] | None, kind: str, tmp_path: Path, tiny_backbone: Path
) -> None:
    settings = json.loads((tiny_backbone / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(None if change is None else settings | change))
    config = BackboneConfig("local", path=str(tmp_path))
    with pytest.raises(UserError, match=rf"^cannot load the backbone from '.*': {kind}: .+"):
        check_loadable(config, locate(config))


@pytest.mark.parametrize(("file", "text", "kind"), [("tokenizer_config.json", "[]", "AttributeError"),
                                                    ("tokenizer.json", '{"version": "1.0"}', "KeyError"),
                                                    ("model.safetensors.index.json", "{}", "KeyError")])  # fmt: skip
def test_what_transformers_raises_about_other_files_is_one_sentence(
    file: str, text: str, kind: str, tmp_path: Path, tiny_backbone: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_backbone, folder)
    (folder / file).write_text(text)
    config = BackboneConfig("local", path=str(folder))
    if "index" in file:
        (folder / "model.safetensors").unlink()
        with pytest.raises(UserError, match=rf"^cannot load the backbone from '.*': {kind}: "):
            load_model(config, locate(config))
    with pytest.raises(UserError, match=rf"^cannot load the backbone from '.*': {kind}: "):
        (check_loadable if "index" in file else lambda _, place: load_tokenizer(place))(config, locate(config))

"""The shipped encoder: small, offline, made from the texts of this version, and trained to fill in masks."""

from __future__ import annotations

import json
import math

import torch
from transformers import AutoModelForPreTraining, AutoTokenizer

from smoa_lightning.backbones.backbone import BackboneConfig, locate, provenance
from smoa_lightning.backbones.heads import Head
from smoa_lightning.embedded import backbone_folder
from tools.embedded import corpus, rebuild_encoder

FOLDER = backbone_folder("sequence_classification")


def test_files_are_small_and_hold_no_code() -> None:
    decoder = sum(path.stat().st_size for path in backbone_folder().iterdir())
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < decoder
    assert {path.name for path in FOLDER.iterdir()} == {
        *("config.json", "model.safetensors", "provenance.json", "tokenizer.json", "tokenizer_config.json")
    }


def test_it_was_made_from_the_texts_of_this_version() -> None:
    made = json.loads((FOLDER / "provenance.json").read_text())
    recipe = rebuild_encoder.EncoderRecipe()
    assert made["recipe"] == json.loads(json.dumps(vars(recipe)))
    assert made["corpus"]["sha256"] == corpus.checksum(rebuild_encoder.documents(recipe))


def test_the_tokenizer_is_that_of_the_decoder_with_a_mask_and_pairs() -> None:
    decoder, encoder = (AutoTokenizer.from_pretrained(folder) for folder in (backbone_folder(), FOLDER))
    words = decoder.get_vocab()
    assert encoder.get_vocab() == {**words, "<mask>": len(words)}
    one, two = (decoder(text, add_special_tokens=False)["input_ids"] for text in ("a film", " it is dull"))
    pair = encoder("a film", " it is dull")
    start, end = encoder.cls_token_id, encoder.sep_token_id
    assert pair["input_ids"] == [start, *one, end, *two, end]
    assert pair["token_type_ids"] == [0] * (len(one) + 2) + [1] * (len(two) + 1)


def test_it_fills_in_masks_of_held_out_texts() -> None:
    """Its loss is well below that of the frequencies of the tokens, which a model without the context can reach."""
    tokenizer, model = AutoTokenizer.from_pretrained(FOLDER), AutoModelForPreTraining.from_pretrained(FOLDER)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    model = model.float().eval()
    recipe = rebuild_encoder.EncoderRecipe(batch=32, seed=5)
    source = rebuild_encoder.batches([text for text in corpus.held_out_text() if "\n" not in text], tokenizer, recipe)
    losses, right, pairs = [], 0, 0
    for _ in range(6):
        batch = next(source)
        labels, follows = batch.pop("labels"), batch.pop("next_sentence_label")
        with torch.no_grad():
            found = model(**batch)
        losses.append(torch.nn.functional.cross_entropy(found.prediction_logits.flatten(0, 1), labels.flatten()).item())
        known = follows != -100
        right += int((found.seq_relationship_logits.argmax(-1) == follows)[known].sum())
        pairs += int(known.sum())
    assert sum(losses) / len(losses) < 0.6 * math.log(len(tokenizer))
    assert right / pairs > 0.8


def test_a_new_head_gets_the_encoder() -> None:
    config = BackboneConfig("embedded")
    location = locate(config, Head("sequence_classification", ("no", "yes")))
    assert location.name == str(FOLDER)
    assert provenance(location)["name"] == "smoa_lightning/embedded/encoder_backbone"
    assert locate(config).name == str(backbone_folder())

"""Tiny random encoders of several families with a tokenizer of whole words, and folders of GLUE rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from smoa_lightning.embedded import rows

from .image_models import FAMILIES as VISION_FAMILIES
from .image_models import SIZE, build_model, write_images

TASKS = ("cola", "sst2", "rte", "stsb", "mnli")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
CLIP_WORDS = [
    "[PAD]",
    "[UNK]",
    "[BOS]",
    "[EOS]",
    "a",
    "photo",
    "of",
    "the",
    "color",
    "drawing",
    "blue",
    "green",
    "red",
    "sky",
    "The",
]
SIZES: dict[str, Any] = {
    **{"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"max_position_embeddings": 64, "pad_token_id": 0, "initializer_range": 0.2},
    **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"type_vocab_size": 1},
    "electra": {"embedding_size": 24},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "pooler_hidden_size": 24},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "pooler_hidden_size": 24},
    "modernbert": {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3, "local_attention": 16},
    "llama": {"num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 3},
}


@pytest.fixture(scope="session")
def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of the rows, with the special tokens and types of BERT."""
    texts = [str(value) for task in TASKS for row in rows(task, "train") for value in row.values()]
    lower, split = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    words = {word for text in texts for word, _ in split.pre_tokenize_str(lower.normalize_str(text))}
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = lower, split
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **names, model_input_names=["input_ids", "token_type_ids", "attention_mask"]
    )


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory, word_tokenizer: PreTrainedTokenizerFast) -> Callable[[str], Path]:
    """Family -> folder of a random model without a head; BERT gets the types of a pair, the others do not."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            settings = {**SIZES, "vocab_size": len(word_tokenizer), **FAMILIES[family]}
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                AutoModel.from_config(AutoConfig.for_model(family, **settings)).save_pretrained(made[family])
            word_tokenizer.save_pretrained(made[family])
            if family != "bert":
                file = made[family] / "tokenizer_config.json"
                names = {"model_input_names": ["input_ids", "attention_mask"]}
                names |= {"eos_token": "[SEP]"} if family == "llama" else {}
                file.write_text(json.dumps(json.loads(file.read_text()) | names))
        return made[family]

    return folder


@pytest.fixture(scope="session")
def glue_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each task, with a few of the generated rows."""
    root = tmp_path_factory.mktemp("glue")
    for task in TASKS:
        (root / task).mkdir()
        report = "validation_matched" if task == "mnli" else "validation"
        for split, count in (("train", 64), (report, 24)):
            lines = [json.dumps(row) for row in rows(task, split)[:count]]
            (root / task / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def teacher_folder(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with other weights, one layer more, and three more rows in its vocabulary than the student."""
    folder = tmp_path_factory.mktemp("teacher")
    shutil.copytree(tiny_backbone, folder, dirs_exist_ok=True)
    config = LlamaConfig.from_pretrained(tiny_backbone)
    config.num_hidden_layers, config.vocab_size, config.initializer_range = 3, config.vocab_size + 3, 0.2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def head_teacher(encoder: Path, folder: Path, **settings: Any) -> Path:
    """Write an encoder with a trained head, whose weights are drawn."""
    shutil.copytree(encoder, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = AutoModelForSequenceClassification.from_pretrained(encoder, **settings)
        for parameter in model.classifier.parameters():
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family -> folder of a random vision model without a head, with an image processor."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            build_model(family).save_pretrained(made[family])
            ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(made[family])
        return made[family]

    return folder


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of splits with a folder for each of three classes."""
    root = tmp_path_factory.mktemp("images")
    write_images(root / "train", {"blue": 16, "green": 16, "red": 16})
    write_images(root / "validation", {"blue": 6, "green": 6, "red": 6}, seed=1)
    return root


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP with both towers, a tokenizer of whole words and an image processor."""
    folder = tmp_path_factory.mktemp("clip")
    vision = VISION_FAMILIES["clip"]["vision_config"] | {"initializer_range": 0.5}
    text = {"vocab_size": len(CLIP_WORDS), "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 10, "projection_dim": 12, "pad_token_id": 0,
            "bos_token_id": 2, "eos_token_id": 3, "initializer_range": 0.5}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=12)).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(CLIP_WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = {"special_tokens": [("[BOS]", 2), ("[EOS]", 3)]}
    tokenizer.post_processor = processors.TemplateProcessing(single="[BOS] $A [EOS]", **ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder

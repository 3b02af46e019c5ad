"""Tiny random vision models of several families, and files of images with a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel

SIZE = 8
SIZES: dict[str, Any] = {
    **{"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"image_size": SIZE, "patch_size": 4, "num_channels": 3, "initializer_range": 0.2},
    **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
TEXT = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 12}
TEXT |= {"intermediate_size": 32, "bos_token_id": 1, "eos_token_id": 2}
SWIN = {"image_size": SIZE, "patch_size": 2, "embed_dim": 24, "depths": [2], "num_heads": [2], "window_size": 2}
SWIN |= {"drop_path_rate": 0.0, "initializer_range": 0.2, "mlp_ratio": 2.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "vit": SIZES,
    "deit": {**SIZES, "architectures": ["DeiTForImageClassification"]},
    "beit": {**SIZES, "drop_path_rate": 0.0},
    "dinov2": {**SIZES, "mlp_ratio": 2},
    "swin": SWIN,
    "clip": {"vision_config": {**SIZES, "projection_dim": 12}, "text_config": TEXT, "projection_dim": 12},
}


def build_model(family: str) -> Any:
    """Return a random model without a head; of CLIP both towers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModel.from_config(AutoConfig.for_model(family, **FAMILIES[family]))


def write_images(folder: Path, classes: dict[str, int], seed: int = 0) -> None:
    """Write noise with one bright channel for each class: name -> number of images."""
    source = np.random.default_rng(seed)
    for number, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = source.integers(0, 120, size=(10, 12, 3), dtype=np.uint8)
            pixels[..., number % 3] += 120
            Image.fromarray(pixels).save(folder / name / f"{index:02}.png")

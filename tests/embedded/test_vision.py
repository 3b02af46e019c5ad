"""The shipped vision model: small, loads offline, and its features name shapes and digits that it has not seen."""

from __future__ import annotations

import base64
import hashlib
import json

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel

from smoa_lightning.data.tasks.image_field import decode
from smoa_lightning.embedded import backbone_folder, rows
from tools.embedded import rebuild_vision, shapes


def features(found: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    processor = AutoImageProcessor.from_pretrained(backbone_folder("image_classification"), backend="pil")
    model = AutoModel.from_pretrained(
        backbone_folder("image_classification"), dtype=torch.float32, add_pooling_layer=False
    ).eval()
    images = [decode(base64.b64decode(row["image"]["bytes"])).convert("RGB") for row in found]
    with torch.no_grad():
        outputs = model(**processor(images, return_tensors="pt")).last_hidden_state[:, 0]
    return outputs.numpy(), np.array([str(row["label"]) for row in found])


@pytest.mark.parametrize(("task", "chance", "least"), [("image_classification", 1 / 8, 0.6), ("digits", 0.1, 0.6)])
def test_its_features_separate_images_of_other_kinds(task: str, chance: float, least: float) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    (x, y), (x_test, y_test) = features(rows(task, "train")), features(rows(task, "test"))
    accuracy = linear.RidgeClassifier(alpha=1.0).fit(x, y).score(x_test, y_test)
    assert accuracy > least > 4 * chance


def test_it_is_small_and_its_origin_is_known() -> None:
    files = list(backbone_folder("image_classification").iterdir())
    assert sum(file.stat().st_size for file in files) < 1_200_000
    provenance = json.loads((backbone_folder("image_classification") / "provenance.json").read_text())
    model = AutoModel.from_pretrained(backbone_folder("image_classification"), add_pooling_layer=False)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert sum(parameter.numel() for parameter in model.parameters()) == provenance["parameters"]
    assert provenance["images"]["shapes"] == list(shapes.TRAINED_MASKS)
    assert not shapes.TRAINED_MASKS.keys() & shapes.ROW_MASKS.keys()


@pytest.mark.slow
def test_it_was_trained_on_the_images_of_this_version() -> None:
    provenance = json.loads((backbone_folder("image_classification") / "provenance.json").read_text())
    pixels, _ = rebuild_vision.images(rebuild_vision.Recipe(**provenance["recipe"]))
    assert hashlib.sha256(pixels.numpy().tobytes()).hexdigest() == provenance["images"]["sha256"]

"""Rebuild the embedded vision model, a small ViT, from generated shapes.

``python -m tools.embedded.rebuild_vision [--output FOLDER] [--steps N]``

It learns to name the shapes of ``shapes.TRAINED_MASKS``, and its head is then removed. The embedded rows have other
shapes. As for the language model, the same versions and the same kind of CPU give the same bytes.
"""

from __future__ import annotations

import hashlib
import platform
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional as F
from tqdm import tqdm
from transformers import ViTConfig, ViTForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from smoa_lightning.common.atomic_files import replacing, write_json
from smoa_lightning.embedded import backbone_folder
from tools.embedded.recipe_options import rebuild_as_asked, run
from tools.embedded.shapes import SIDE, TRAINED_MASKS, draw


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the rebuilt files, except the shapes and the versions of the libraries."""

    hidden: int = 64
    layers: int = 4
    heads: int = 4
    intermediate: int = 128
    side: int = 16
    patch: int = 4
    images: int = 24_000
    batch: int = 64
    steps: int = 4000
    peak: float = 1.5e-3
    warmup: float = 0.05
    weight_decay: float = 0.05
    seed: int = 20_26
    threads: int = 1


def new_model(recipe: Recipe) -> ViTForImageClassification:
    """Return the untrained model of the recipe with a head for the trained shapes, in float32."""
    config = ViTConfig(
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.intermediate,
        image_size=recipe.side,
        patch_size=recipe.patch,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(TRAINED_MASKS)),
    )
    torch.manual_seed(recipe.seed)
    return ViTForImageClassification(config)


def images(recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the training images, (N, 3, side, side) uint8, and the numbers of their shapes, (N,)."""
    source, masks = random.Random(recipe.seed), list(TRAINED_MASKS.values())
    labels = [source.randrange(len(masks)) for _ in range(recipe.images)]
    pixels = np.stack([draw(source, masks[label]) for label in labels])
    whole = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return F.avg_pool2d(whole.float(), SIDE // recipe.side).round().to(torch.uint8), torch.tensor(labels)


def changed(pixels: torch.Tensor) -> torch.Tensor:
    """Return images from -1 to 1: half of them grey, half of them blurred, all with some noise."""
    pixels = pixels.float() / 127.5 - 1
    count = len(pixels)
    grey = torch.rand(count, 1, 1, 1) < 0.5
    pixels = torch.where(grey, pixels.mean(1, keepdim=True).expand_as(pixels), pixels)
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    pixels = torch.where(torch.rand(count, 1, 1, 1) < 0.5, blurred, pixels)
    return pixels + 0.1 * torch.rand(count, 1, 1, 1) * torch.randn_like(pixels)


def rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step (from 0): linear warm-up to the peak, then linear decay to 0."""
    rising = max(1, round(recipe.warmup * recipe.steps))
    return recipe.peak * min((step + 1) / rising, (recipe.steps - step) / max(1, recipe.steps - rising))


def train(model: ViTForImageClassification, recipe: Recipe, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    """Train in place; return the accuracy over the last 50 batches."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.peak, betas=(0.9, 0.98))
    right: list[float] = []
    for step in (bar := tqdm(range(recipe.steps), desc="training", unit="step", mininterval=10)):
        chosen = torch.randint(len(labels), (recipe.batch,))
        logits = model(pixel_values=changed(pixels[chosen])).logits
        loss = F.cross_entropy(logits, labels[chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, recipe)
        optimizer.step()
        optimizer.zero_grad()
        right.append(float((logits.argmax(-1) == labels[chosen]).float().mean()))
        bar.set_postfix(acc=f"{sum(right[-50:]) / len(right[-50:]):.3f}", refresh=False)
    return sum(right[-50:]) / len(right[-50:])


def rebuild(output: Path, recipe: Recipe) -> dict[str, Any]:
    """Train the model, write it to ``output`` in place of what is there, and return the provenance."""
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    pixels, labels = images(recipe)
    model = new_model(recipe)
    accuracy = train(model, recipe, pixels, labels)
    backbone = model.vit.bfloat16()
    backbone.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}  # the defaults: the head with the shapes is gone
    backbone.config.label2id = {"LABEL_0": 0, "LABEL_1": 1}
    provenance = {
        "recipe": asdict(recipe),
        "images": {"sha256": hashlib.sha256(pixels.numpy().tobytes()).hexdigest(), "shapes": list(TRAINED_MASKS)},
        "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "accuracy": round(accuracy, 4),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    with replacing(output) as fresh:
        backbone.save_pretrained(fresh)
        ViTImageProcessorPil(size={"height": recipe.side, "width": recipe.side}).save_pretrained(fresh)
        for path in fresh.iterdir():
            path.chmod(0o644)  # safetensors writes files that only the owner can read
        write_json(fresh / "provenance.json", provenance)
    parameters = provenance["parameters"]
    print(f"{output}: {parameters} parameters, accuracy {accuracy:.3f}, {time.monotonic() - started:.0f} s")
    return provenance


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and rebuild."""
    folder = backbone_folder("image_classification")
    rebuild_as_asked("tools.embedded.rebuild_vision", __doc__, folder, Recipe(), rebuild, arguments)


if __name__ == "__main__":
    run(main)

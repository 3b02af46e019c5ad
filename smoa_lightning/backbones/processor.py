"""What makes the inputs of a backbone: a tokenizer for texts, or an image processor."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedTokenizerBase

from smoa_lightning.backbones.backbone import Location, content, read_architecture, reading_errors
from smoa_lightning.backbones.tokenizer import load_tokenizer
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.process_cache import cached

FILES = ("preprocessor_config.json", "processor_config.json")
TIMM = "timm_wrapper"  # models of timm have the settings of their image processor in config.json
Processor = PreTrainedTokenizerBase | BaseImageProcessor


def load_processor(location: Location) -> Processor:
    """Load the tokenizer of a model that reads texts, or the image processor of one that reads images.

    Raises:
        UserError: It is missing or cannot be read.
    """
    return load_image_processor(location) if location.head.reads_images else load_tokenizer(location)


def load_image_processor(location: Location) -> BaseImageProcessor:
    """Load the image processor: it resizes, crops and normalises images as in pretraining.

    Always that of Pillow: torchvision resizes to slightly different pixels, and it may or may not be installed. Models
    of timm have that of timm, which resizes with Pillow too.

    Raises:
        UserError: There is none, or it cannot be read.
    """
    return copy.deepcopy(cached("image processor", content(location), lambda: _read(location)))


def _read(location: Location) -> BaseImageProcessor:
    kind = read_architecture(location).model_type  # refuses a model that reads texts, which has no image processor
    if location.source != "hub" and kind != TIMM and not any((Path(location.name) / name).is_file() for name in FILES):
        raise UserError(
            f"the backbone {location.name!r} has no image processor: copy the file preprocessor_config.json of the "
            "model into its folder"
        )
    with reading_errors(location):
        processor: BaseImageProcessor = AutoImageProcessor.from_pretrained(**location.reading(), backend="pil")
    return processor


def channels_of(processor: Any) -> int:
    """Return how many channels the images of a model have: 3 unless its image processor normalises one."""
    settings = getattr(processor, "data_config", {})  # of timm
    return len(getattr(processor, "image_mean", None) or settings.get("mean") or (0, 0, 0))


def pixels_of(processor: Any) -> tuple[int, int, int]:
    """Return channels, height and width that an image processor makes of a gray image of 224 x 224 pixels."""
    image = Image.new("L" if channels_of(processor) == 1 else "RGB", (224, 224))
    depth, height, width = processor(image, return_tensors="pt")["pixel_values"][0].shape
    return depth, height, width

"""What makes the inputs of a backbone: a tokenizer for texts, or an image processor."""

from __future__ import annotations

import copy
from pathlib import Path

from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedTokenizerBase

from smoa_lightning.backbones.backbone import Location, content, read_architecture, reading_errors
from smoa_lightning.backbones.tokenizer import load_tokenizer
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.process_cache import cached

FILES = ("preprocessor_config.json", "processor_config.json")
Processor = PreTrainedTokenizerBase | BaseImageProcessor


def load_processor(location: Location) -> Processor:
    """Load the tokenizer of a model that reads texts, or the image processor of one that reads images.

    Raises:
        UserError: It is missing or cannot be read.
    """
    return load_image_processor(location) if location.head.reads_images else load_tokenizer(location)


def load_image_processor(location: Location) -> BaseImageProcessor:
    """Load the image processor: it resizes, crops and normalises images as in pretraining.

    Always that of Pillow: torchvision resizes to slightly different pixels, and it may or may not be installed.

    Raises:
        UserError: There is none, or it cannot be read.
    """
    return copy.deepcopy(cached("image processor", content(location), lambda: _read(location)))


def _read(location: Location) -> BaseImageProcessor:
    read_architecture(location)  # refuses a model that reads texts, which has no image processor
    if location.source != "hub" and not any((Path(location.name) / name).is_file() for name in FILES):
        raise UserError(
            f"the backbone {location.name!r} has no image processor: copy the file preprocessor_config.json of the "
            "model into its folder"
        )
    with reading_errors(location):
        processor: BaseImageProcessor = AutoImageProcessor.from_pretrained(**location.reading(), backend="pil")
    return processor

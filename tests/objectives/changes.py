"""Changes of images for tests of ``data.augmentation``: each draws from another global generator."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image, ImageOps


class Flip:
    """Flip left and right with probability p, from torch's generator, as torchvision's transforms draw."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        return ImageOps.mirror(image) if torch.rand(1).item() < self.p else image


class Brighten:
    """Add a random number to all pixels, from Python's generator."""

    def __call__(self, image: Image.Image) -> Image.Image:
        shift = random.randint(1, 60)
        return image.point(lambda value: min(255, value + shift))


class Noise:
    """Random pixels, from NumPy's generator, and in another mode than that of the image."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return Image.fromarray(np.random.randint(0, 255, (image.height, image.width), dtype=np.uint8))


class Each:
    """Several changes, given as objects."""

    def __init__(self, changes: list[Flip | Brighten | Noise]) -> None:
        self.changes = changes

    def __call__(self, image: Image.Image) -> Image.Image:
        for change in self.changes:
            image = change(image)
        return image


class OwnGenerator:
    """Draws from a generator that nobody seeds again; the first eight images come in four pairs of equal ones."""

    def __init__(self) -> None:
        self.source = np.random.default_rng(3)

    def __call__(self, image: Image.Image) -> Image.Image:
        return ImageOps.mirror(image) if self.source.random() < 0.5 else image


class InPlace:
    """Changes the image that it is given."""

    def __call__(self, image: Image.Image) -> Image.Image:
        image.paste(ImageOps.invert(image))
        return image


class Wide:
    """Returns values of more than 8 bits, or no pixel."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, image: Image.Image) -> Image.Image:
        gray = np.asarray(image.convert("L"))
        if self.kind == "none":
            return image.crop((0, 0, 0, 0))
        return Image.fromarray(gray / np.float32(255) if self.kind == "float" else gray.astype(np.uint16) * 257)


class ToArray:
    def __call__(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image)


class Fails:
    def __call__(self, image: Image.Image) -> Image.Image:
        raise ZeroDivisionError("no pixels\nin two lines")


class Crop:
    """The left upper corner."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.crop((0, 0, self.size, self.size))


class FailsOnBlue:
    """Fails on the images of one class; the first row is of another class."""

    def __call__(self, image: Image.Image) -> Image.Image:
        red, green, blue = np.asarray(image).reshape(-1, 3).mean(axis=0)
        if blue > max(red, green) + 30:
            raise ValueError("too blue")
        return image


class NotCallable:
    pass

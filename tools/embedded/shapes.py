"""Generated images of 32 x 32 pixels with one shape: embedded rows, and what the embedded vision model is trained on.

Everything is integer arithmetic on the grid of pixels, so that every machine draws the same images. A rotation is a
Pythagorean triple (a, b, c): cos = a / c and sin = b / c. The shapes of the rows are not among those of the training.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from smoa_lightning.data.tasks.images import SHAPES

SIDE = 32
COUNTS = {"train": 320, "validation": 120, "test": 120}
TURNS = ((1, 0, 1), (3, 4, 5), (4, 3, 5), (5, 12, 13), (12, 5, 13), (0, 1, 1), (-3, 4, 5), (-4, 3, 5), (-5, 12, 13),
         (-12, 5, 13), (-1, 0, 1), (-4, -3, 5), (0, -1, 1), (3, -4, 5), (4, -3, 5), (12, -5, 13))  # fmt: skip

Grid = np.ndarray
Mask = Callable[[Grid, Grid, int], Grid]  # coordinates u and v from the centre, and the radius -> inside?

ROW_MASKS: dict[str, Mask] = {
    "circle": lambda u, v, r: u * u + v * v <= r * r,
    "square": lambda u, v, r: np.maximum(abs(u), abs(v)) * 5 <= 4 * r,
    "triangle": lambda u, v, r: (2 * abs(u) <= v + r) & (5 * v <= 4 * r),
    "cross": lambda u, v, r: (np.minimum(abs(u), abs(v)) * 3 <= r) & (np.maximum(abs(u), abs(v)) <= r),
    "ring": lambda u, v, r: (u * u + v * v <= r * r) & (5 * (u * u + v * v) >= 2 * r * r),
    "frame": lambda u, v, r: (np.maximum(abs(u), abs(v)) * 5 <= 4 * r) & (np.maximum(abs(u), abs(v)) * 2 >= r),
    "bar": lambda u, v, r: (abs(u) <= r) & (abs(v) * 3 <= r),
    "crescent": lambda u, v, r: (u * u + v * v <= r * r) & ((2 * u - r) ** 2 + 4 * v * v >= 3 * r * r),
}
TRAINED_MASKS: dict[str, Mask] = {
    "ell": lambda u, v, r: ((abs(u + r // 2) * 4 <= r) & (abs(v) <= r)) | ((abs(v - r // 2) * 4 <= r) & (abs(u) <= r)),
    "tee": lambda u, v, r: ((abs(v + r // 2) * 4 <= r) & (abs(u) <= r)) | ((abs(u) * 4 <= r) & (abs(v) <= r)),
    "dots": lambda u, v, r: (abs(u) - r * 3 // 5) ** 2 + v * v <= r * r // 5,
    "bowtie": lambda u, v, r: (abs(v) <= abs(u)) & (abs(u) <= r),
    "stairs": lambda u, v, r: (np.sign(u) * np.sign(v) > 0) & (np.maximum(abs(u), abs(v)) <= r),
    "arc": lambda u, v, r: (u * u + v * v <= r * r) & (2 * (u * u + v * v) >= r * r) & (u <= 0),
    "half": lambda u, v, r: (u * u + v * v <= r * r) & (u >= 0),
    "wedge": lambda u, v, r: (u * u + v * v <= r * r) & ((u >= 0) | (v >= 0)),
    "diagonals": lambda u, v, r: (abs(abs(u) - abs(v)) * 3 <= r) & (np.maximum(abs(u), abs(v)) <= r),
    "lines": lambda u, v, r: (np.abs(abs(v) - r // 2) * 4 <= r) & (abs(u) <= r),
    "gap": lambda u, v, r: (u * u + v * v <= r * r) & (2 * (u * u + v * v) >= r * r) & ((u <= 0) | (2 * abs(v) >= r)),
    "hook": lambda u, v, r: (
        ((abs(u) * 4 <= r) & (abs(v) <= r)) | ((abs(v + r * 3 // 4) * 4 <= r) & (u >= 0) & (u <= r))
    ),
}


def draw(source: random.Random, mask: Mask) -> np.ndarray:
    """Return an image with a shape of a random place, size, turn and colour: (32, 32, 3) uint8."""
    a, b, c = source.choice(TURNS)
    radius = source.randrange(8, 14)
    x, y = (source.randrange(radius + 1, SIDE - radius) for _ in range(2))
    across, down = np.meshgrid(np.arange(SIDE) - x, np.arange(SIDE) - y)
    inside = mask(a * across + b * down, a * down - b * across, radius * c)
    while True:
        colours = [[source.randrange(256) for _ in range(3)] for _ in range(2)]
        if sum(colours[1]) - sum(colours[0]) >= 240:  # bright on dark, as most handwriting
            pixels: np.ndarray = np.array(colours, dtype=np.uint8)[inside.astype(int)]
            return pixels


def file_of(pixels: np.ndarray) -> bytes:
    """Return an image as a PPM file, whose bytes depend on no library."""
    return b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


def rows(split: str) -> list[dict[str, Any]]:
    """Return the rows of a split: an image as base64 text, and the name of its class; always the same."""
    source, made = random.Random(f"shapes {split}"), []
    for number in range(COUNTS[split]):
        name = SHAPES[number % len(SHAPES)]
        content = base64.b64encode(file_of(draw(source, ROW_MASKS[name]))).decode()
        made.append({"image": {"bytes": content, "path": None}, "label": name})
    source.shuffle(made)
    return made

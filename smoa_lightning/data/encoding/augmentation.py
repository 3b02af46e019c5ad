"""Random changes of training images, by class path: the same for a row in an epoch, in any process and resumed run."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jsonargparse import Namespace
from PIL import Image

from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.configuration.import_policy import import_class

SETTING = "data.augmentation"
TRIED = 8  # epochs in which the first image is changed twice


class Augmentation:
    """Changes that are made one after the other: x -> f_n(... f_1(x)), each f a callable on a PIL image.

    While an image is changed, the global generators of torch, NumPy and Python have states that depend on the seed, the
    epoch and the row alone. Afterwards they have their old states.

    Args:
        specs: ``class_path`` and ``init_args`` of each change; arguments may hold further class paths.
        seed: The seed.

    Raises:
        UserError: A class cannot be imported or made, or its objects are not callable.
    """

    def __init__(self, specs: Sequence[Mapping[str, Any]], seed: int) -> None:
        self.text = json.dumps(list(specs), sort_keys=True, default=_plain)
        self._names = [str(spec["class_path"]) for spec in specs]
        self._changes = [_made(spec) for spec in specs]
        self._seed = seed
        for name, change in zip(self._names, self._changes, strict=True):
            if not callable(change):
                raise UserError(f"{SETTING}: {name} makes an object that cannot be called with an image")

    def __call__(self, image: Image.Image, epoch: int, row: int) -> Image.Image:
        """Return the image of a row as an epoch sees it.

        Args:
            image: The image.
            epoch: Number of the epoch.
            row: Index of the row in its split.

        Raises:
            UserError: A change fails, or returns no image, or one that has no pixels or more than 8 bits.
        """
        with seeded_draws(self._seed, epoch, row):
            for name, change in zip(self._names, self._changes, strict=True):
                try:
                    changed = change(image)
                except Exception as error:  # each library has its own
                    raise UserError(
                        f"{SETTING}: {name} cannot change the image of row {row + 1}: {one_line(error, kind=True)}"
                    ) from error
                if not isinstance(changed, Image.Image):
                    kind = type(changed)
                    raise UserError(
                        f"{SETTING}: {name} returns {kind.__module__}.{kind.__qualname__} for an image, but must "
                        "return an image (PIL.Image.Image); the image processor of the model makes the tensor"
                    )
                image = changed
        if image.mode in ("I", "F") or image.mode.startswith("I;16") or 0 in image.size:
            fault = (
                "without pixels" if 0 in image.size else f"of the mode {image.mode!r}, whose largest value is unknown"
            )
            raise UserError(f"{SETTING}: {name} returns an image {fault}, but must return one with 8 bits, such as RGB")
        return image

    def check(self, image: Image.Image, row: int) -> None:
        """Try the changes on an image in some epochs, twice in each.

        Raises:
            UserError: A change fails, or draws from a generator of its own, so that no run could be repeated.
        """
        for epoch in range(TRIED):
            first, second = (np.asarray(self(image.copy(), epoch, row)) for _ in range(2))
            if not np.array_equal(first, second):
                raise UserError(
                    f"{SETTING}: {', '.join(self._names)} change one image in two ways with the same seed; changes "
                    "must draw from the global generators of torch, NumPy or Python, which are seeded for each image"
                )


def _plain(value: Any) -> Any:
    """Return what JSON can hold; the parser makes namespaces of some mappings."""
    return value.as_dict() if isinstance(value, Namespace) else str(value)


def _made(spec: Any) -> Any:
    """Return the object of a class path; other values as they are."""
    if isinstance(spec, Namespace):
        spec = spec.as_dict()
    if isinstance(spec, list | tuple):
        return [_made(inner) for inner in spec]
    if not isinstance(spec, Mapping):
        return spec
    if "class_path" not in spec:
        return {name: _made(inner) for name, inner in spec.items()}
    path, given = str(spec["class_path"]), spec.get("init_args") or {}
    if not (spec.keys() <= {"class_path", "init_args"} and isinstance(given, Mapping)):
        raise UserError(f"{SETTING}: {dict(spec)} must be a mapping with class_path and the mapping init_args alone")
    kind = import_class(path, SETTING, {"torchvision": "images"})
    arguments = {name: _made(inner) for name, inner in given.items()}
    try:
        return kind(**arguments)
    except Exception as error:  # each library has its own
        raise UserError(f"{SETTING}: {path} refuses its init_args: {one_line(error)}") from error


@contextlib.contextmanager
def seeded_draws(*numbers: int) -> Iterator[None]:
    """Seed the global generators of torch (CPU), NumPy and Python with some numbers, and restore their states."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])

"""Handwritten digits of the library scikit-learn, whose wheel holds them: real images without a download."""

from __future__ import annotations

import base64
from typing import Any

from smoa_lightning.common.errors import UserError

TRAIN, SELECTED = 1200, 1500  # the first rows train; those after the second number are the report


def rows(split: str) -> list[dict[str, Any]]:
    """Return the digits of a split as rows with an image of 8 x 8 grey values (PGM) and a label.

    The 1,797 digits stay in their order, which is that of the writers: most writers of the test rows are not among
    those of the training rows. ``train`` has 1,200 rows, ``validation`` 300, ``test`` 297.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            "task 'digits': its images are in the library scikit-learn, which is not installed; install scikit-learn, "
            "or name files with data.source: local and data.path"
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    bounds = {"train": (0, TRAIN), "validation": (TRAIN, SELECTED), "test": (SELECTED, len(labels))}
    made = []
    for number in range(*bounds[split]):
        grey = (pixels[number] * 255 / 16).round().astype("uint8")
        content = base64.b64encode(b"P5 8 8 255\n" + grey.tobytes()).decode()
        made.append({"image": {"bytes": content, "path": None}, "label": int(labels[number])})
    return made

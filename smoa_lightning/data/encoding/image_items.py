"""Images of a part, decoded and processed when they are read: the pixels of all images would fill a disk."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.encode_examples import PartStatistics
from smoa_lightning.data.encoding.items import ImageItem, LazyItems
from smoa_lightning.data.rows.row_table import RowTable
from smoa_lightning.data.tasks import Classification
from smoa_lightning.data.tasks.image_field import decode

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

RELEASED = 256  # images that are read before their pages are released


class ImageItems(LazyItems):
    """The images of a part.

    Args:
        rows: The rows of the split.
        indices: The rows of the part, as indices into the split.
        protocol: Makes the examples.
        processor: The image processor of the model.

    Raises:
        UserError: The processor makes no ``pixel_values`` of the first image.
    """

    system_text = None  # conversations only

    def __init__(
        self, rows: RowTable, indices: np.ndarray, protocol: Classification, processor: BaseImageProcessor
    ) -> None:
        self._rows, self._indices, self._protocol, self._processor = rows, indices, protocol, processor
        self._mode = "L" if len(getattr(processor, "image_mean", None) or (0, 0, 0)) == 1 else "RGB"
        self._read = 0
        self.labels = np.array([self._example(number).label for number in range(len(indices))], dtype=np.float64)
        self.statistics = self._statistics()
        if len(indices):
            self.item(0)  # an error of the processor comes before the weights are read

    def __len__(self) -> int:
        return len(self._indices)

    def _example(self, number: int) -> Any:
        example = self._protocol.example(self._rows[int(self._indices[number])])
        self._read += 1
        if self._read % RELEASED == 0:
            self._rows.release()
        return example

    def item(self, number: int) -> ImageItem:
        """Return an image by its number."""
        example, row = self._example(number), int(self._indices[number])
        image = decode(base64.b64decode(example.image)).convert(self._mode)
        try:
            pixels = self._processor(image, return_tensors="np")["pixel_values"][0]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"the image processor of the model ({type(self._processor).__name__}) cannot read the image of row "
                f"{row + 1}: {error}"
            ) from error
        return ImageItem(np.asarray(pixels, dtype=np.float32), int(example.label), row)

    @property
    def lengths(self) -> np.ndarray:
        """Ones, (N,) int32: all images have the same size, and each counts as one token."""
        return np.ones(len(self._indices), dtype=np.int32)

    def _statistics(self) -> dict[str, Any]:
        counts = PartStatistics(num_rows=len(self), target_tokens=len(self))
        counts.lengths.extend(self.lengths.tolist())
        return counts.as_dict()

"""Images of a part, decoded and processed when they are read: the pixels of all images would fill a disk."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from smoa_lightning.backbones.processor import channels_of
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.augmentation import SETTING, Augmentation
from smoa_lightning.data.encoding.encode_examples import PartStatistics
from smoa_lightning.data.encoding.items import ImageItem, LazyItems
from smoa_lightning.data.rows.lazy_sequence import LazySequence
from smoa_lightning.data.rows.row_table import RowTable
from smoa_lightning.data.tasks import Classification
from smoa_lightning.data.tasks.image_field import decode

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import BaseImageProcessor

RELEASED = 256  # images that are read before their pages are released
EPOCHS = 2**31  # more than any run has


class ImageItems(LazyItems):
    """The images of a part.

    Args:
        rows: The rows of the split.
        indices: The rows of the part, as indices into the split.
        protocol: Makes the examples.
        processor: The image processor of the model.
        augmentation: What changes the images in training; only ``in_epoch`` uses it.

    Raises:
        UserError: The processor makes no ``pixel_values`` of the first image, or the augmentation cannot change it.
    """

    system_text = None  # conversations only

    def __init__(
        self,
        rows: RowTable,
        indices: np.ndarray,
        protocol: Classification,
        processor: BaseImageProcessor,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.augmentation = augmentation
        self._rows, self._indices, self._protocol, self._processor = rows, indices, protocol, processor
        self._mode = "L" if channels_of(processor) == 1 else "RGB"
        self._read = 0
        self.labels = np.array([self._example(number).label for number in range(len(indices))], dtype=np.float64)
        self.statistics = self._statistics()
        if len(indices):  # errors of the processor and of the augmentation come before the weights are read
            shape = self.item(0).pixels.shape
            if augmentation is not None:
                augmentation.check(self._image(self._example(0)), int(indices[0]))
                self._check_shape(self.in_epoch(0, 0).pixels.shape, shape)

    def __len__(self) -> int:
        return len(self._indices)

    def _check_shape(self, changed: tuple[int, ...], whole: tuple[int, ...]) -> None:
        """Refuse changes after which the model reads other sizes than in scores."""
        if changed != whole:
            raise UserError(
                f"{SETTING}: a changed image has pixels of the shape {changed}, and without changes {whole}: the image "
                "processor of the model does not resize, so the last change must give the size of the images"
            )

    def _example(self, number: int) -> Any:
        example = self._protocol.example(self._rows[int(self._indices[number])])
        self._read += 1
        if self._read % RELEASED == 0:
            self._rows.release()
        return example

    def _image(self, example: Any) -> Image:
        return decode(base64.b64decode(example.image)).convert(self._mode)

    def item(self, number: int) -> ImageItem:
        """Return an image by its number, without augmentation."""
        example = self._example(number)
        return self._processed(self._image(example), example, int(self._indices[number]))

    def in_epoch(self, number: int, epoch: int) -> ImageItem:
        """Return an image by its number as training sees it in an epoch."""
        example, row = self._example(number), int(self._indices[number])
        image = self._image(example)
        if self.augmentation is not None:
            image = self.augmentation(image, epoch, row).convert(self._mode)
        return self._processed(image, example, row)

    def _processed(self, image: Image, example: Any, row: int) -> ImageItem:
        try:
            pixels = self._processor(image, return_tensors="pt")["pixel_values"][0]
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
        return {**counts.as_dict(), "unit": "images"}


class ImagesOfEpochs(LazySequence[ImageItem]):
    """The images of all epochs of a training: number i + e N is image i of N in epoch e.

    Args:
        images: The images, with an augmentation.
    """

    def __init__(self, images: ImageItems) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images) * EPOCHS

    def item(self, number: int) -> ImageItem:
        """Return an image by its number."""
        epoch, place = divmod(number, len(self._images))
        return self._images.in_epoch(place, epoch)

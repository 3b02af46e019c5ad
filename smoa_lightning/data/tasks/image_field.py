"""The field with an image, and images as rows have them: the bytes of an image file as base64 text."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smoa_lightning.common.errors import one_line
from smoa_lightning.data.tasks.fields import RowError, kind

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


@dataclass(frozen=True)
class Picture:
    """An image: an object with its ``bytes`` or its ``path``, as in the library ``datasets``, or base64 text.

    The value in a checked row is the file as base64 text. So rows with the same images are equal, in any format and on
    any machine.
    """

    def check(self, value: Any) -> str:
        """Return the bytes of the file as base64 text, after they were decoded once."""
        from PIL.Image import DecompressionBombError

        content = _content(value)
        try:
            decode(content)
        except (OSError, ValueError, SyntaxError, EOFError, DecompressionBombError) as error:
            # Pillow raises all of these for damaged files, or for an image that would fill the memory. The address of
            # the stream in memory says nothing.
            reason = one_line(error, 200).split(" <_io.")[0]
            raise RowError(f"holds an image that cannot be decoded ({reason})") from None
        return base64.b64encode(content).decode()

    def parse(self, text: str) -> str:
        """Return the text unchanged."""
        return text

    def unread(self, value: Any) -> list[str]:
        """Return the parts of a value that are not read: none."""
        return []


def _content(value: Any) -> bytes:
    if isinstance(value, dict):
        value = value.get("bytes") or (Path(str(value["path"])) if value.get("path") else None)
    try:
        if isinstance(value, Path):
            return value.read_bytes()
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except OSError as error:
        raise RowError(f"names {value}, which cannot be read ({error.strerror or error})") from None
    except (binascii.Error, ValueError):
        raise RowError(
            f"is the text {value[:40]!r}, but must be an image: an object with 'bytes' or 'path', or base64 text"
        ) from None
    if not isinstance(value, bytes):
        raise RowError(f"must be an image (an object with 'bytes' or 'path'), not {kind(value)}")
    return value


def decode(content: bytes) -> Image:
    """Return the image of a file, turned as its EXIF entry says (as the library ``datasets`` does).

    An image of one channel with 16 bits is scaled to 8 bits: Pillow's conversion would make all values above 255 white.
    """
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content)) as image:
        turned = ImageOps.exif_transpose(image)
        turned.load()
        return eight_bits(turned, is_png=image.format == "PNG")


def eight_bits(image: Image, is_png: bool) -> Image:
    """Return an image whose 16-bit values are divided by 257, so that 65,535 becomes 255; others as they are.

    Args:
        image: The image; a mode ``I`` holds 32 bits, except in some versions of Pillow that read PNG files into it.
        is_png: Whether it is from a PNG file, which has at most 16 bits.

    Raises:
        ValueError: Values of 32 bits, whose largest value is not known.
    """
    from PIL import Image as pillow

    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    if image.mode == "F" or (image.mode == "I" and not is_png):
        raise ValueError("its values have 32 bits, and the largest one is not known; save it with 8 or 16 bits")
    return pillow.fromarray((np.asarray(image) / 257).round().astype(np.uint8))


def image_key(text: str) -> str:
    """Return the SHA-256 of the base64 text of an image: rows with the same image are in one group."""
    return hashlib.sha256(text.encode()).hexdigest()

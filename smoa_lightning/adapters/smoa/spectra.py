"""A disk cache of spectral orders and singular values, the most expensive part of injection.

They depend on one weight only, not on r, K or seed, so that all runs of a study with one backbone share them. A file is
an array and four bytes, which are its CRC-32. Its name is a hash of the weight. Files may be deleted at any time. The
folder is ``$SMOA_LIGHTNING_CACHE/spectra`` or one in the user's cache.
"""

from __future__ import annotations

import io
import logging
import zlib
from pathlib import Path

import numpy
import torch
from torch import Tensor

from smoa_lightning.adapters import gram
from smoa_lightning.adapters.smoa import subspaces
from smoa_lightning.adapters.tuner.fingerprint import fingerprint_text
from smoa_lightning.common.atomic_files import CACHE, cache_folder, replacing

logger = logging.getLogger(__name__)
VERSION = 3  # raise it if subspaces computes different results, or files change

_reported: set[Path] = set()  # files and folders with a printed message


class SpectraOf:
    """Spectral orders and singular values of one weight, read from the cache or computed.

    Args:
        weight: W of shape (d_out, d_in).
        words: Its fingerprint. The hash is exact for bfloat16; for other dtypes the file name also has a checksum.
    """

    def __init__(self, weight: Tensor, words: Tensor) -> None:
        self.weight = weight
        self.fingerprint = fingerprint_text(words)

    def orders(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows and columns by rising spectral score, as ``subspaces.spectral_orders``."""
        d_out, d_in = weight.shape
        cached = _read(self._file("orders"), d_out + d_in)
        if cached is not None:
            rows, cols = cached.to(torch.int64).split([d_out, d_in])
            if subspaces.is_permutation(rows) and subspaces.is_permutation(cols):
                return rows, cols
        rows, cols = subspaces.spectral_orders(weight)
        _write(self._file("orders"), torch.cat([rows, cols]).to(torch.int32))
        return rows, cols

    def singular_values(self) -> Tensor:
        """Return the singular values, descending, float64, as ``gram.singular_values``."""
        values = _read(self._file("singular_values"), min(self.weight.shape))
        if values is None:
            values = gram.singular_values(self.weight).cpu()
            _write(self._file("singular_values"), values)
        return values.to(torch.float64)

    def _file(self, what: str) -> Path:
        content = self.weight.detach()
        name = f"{self.fingerprint}-{str(content.dtype).removeprefix('torch.')}-{tuple(content.shape)}"
        if content.dtype != torch.bfloat16:
            content = content if content.is_contiguous() else content.t()
            content = content.contiguous().cpu()
            name += f"-{zlib.crc32(content.view(torch.uint8).numpy().data):08x}"
        return cache_folder("spectra") / f"v{VERSION}" / f"{name.replace(', ', 'x')}-{what}.npy"


def _read(file: Path, length: int) -> Tensor | None:
    """Return the array of a file, or None if it is missing, damaged or of a different length; damage is reported."""
    try:
        content = file.read_bytes()
        if _checksum(content[:-4]) != content[-4:]:
            raise ValueError("its checksum is wrong")
        values = torch.from_numpy(numpy.load(io.BytesIO(content), allow_pickle=False))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, TypeError) as error:
        _report(file, f"{file} is damaged ({error}); the spectrum is computed again.")
        return None
    logger.debug("spectrum read from %s", file)
    return values if values.shape == (length,) else None


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little")


def _write(file: Path, values: Tensor) -> None:
    stream = io.BytesIO()
    numpy.save(stream, values.numpy())
    try:
        with replacing(file) as temporary:
            temporary.write_bytes(stream.getvalue() + _checksum(stream.getvalue()))
    except OSError as error:
        reason = error.strerror or error
        _report(
            file.parent, f"spectra cannot be cached in {file.parent} ({reason}); set {CACHE} to a different folder."
        )


def _report(place: Path, sentence: str) -> None:
    if place not in _reported:
        _reported.add(place)
        logger.warning("%s", sentence)

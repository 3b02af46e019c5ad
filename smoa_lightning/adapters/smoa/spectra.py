"""Spectral orders and singular values of base weights on disk: what injection costs most is computed once a machine.

They are functions of one weight, whatever r, K and seed: every run of an ablation over one backbone shares them. A file
is a plain array under a name made of the content of the weight; it may be deleted at any time. The folder is
``$SMOA_LIGHTNING_CACHE/spectra``, or else that of the user's caches.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy
import torch
from torch import Tensor

from smoa_lightning.adapters import gram
from smoa_lightning.adapters.smoa import subspaces
from smoa_lightning.adapters.tuner.fingerprint import fingerprint_text
from smoa_lightning.common.atomic_files import CACHE, cache_folder, replacing

VERSION = 2  # raise it when subspaces computes something else, or files are named otherwise

_told: set[Path] = set()


class SpectraOf:
    """Spectral orders and singular values of one weight, computed where no file has them.

    Args:
        weight: W of shape (d_out, d_in).
        words: Its fingerprint, whose hash is exact for bfloat16; a checksum of the content makes up for other dtypes.
    """

    def __init__(self, weight: Tensor, words: Tensor) -> None:
        self.weight = weight
        self.fingerprint = fingerprint_text(words)

    def orders(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns by rising spectral score, as ``subspaces.spectral_orders``."""
        d_out, d_in = weight.shape
        kept = _read(self._file("orders"), d_out + d_in)
        if kept is not None:
            rows, cols = kept.to(torch.int64).split([d_out, d_in])
            if subspaces.is_permutation(rows) and subspaces.is_permutation(cols):
                return rows, cols
        rows, cols = subspaces.spectral_orders(weight)
        _write(self._file("orders"), torch.cat([rows, cols]).to(torch.int32))
        return rows, cols

    def singular_values(self) -> Tensor:
        """The singular values, descending, float64, as ``gram.singular_values``."""
        kept = _read(self._file("singular_values"), min(self.weight.shape))
        if kept is None:
            kept = gram.singular_values(self.weight).cpu()
            _write(self._file("singular_values"), kept)
        return kept.to(torch.float64)

    def _file(self, what: str) -> Path:
        content = self.weight.detach()
        name = f"{self.fingerprint}-{str(content.dtype).removeprefix('torch.')}-{tuple(content.shape)}"
        if content.dtype != torch.bfloat16:
            content = content if content.is_contiguous() else content.t()
            content = content.contiguous().cpu()
            name += f"-{zlib.crc32(content.view(torch.uint8).numpy().data):08x}"
        return cache_folder("spectra") / f"v{VERSION}" / f"{name.replace(', ', 'x')}-{what}.npy"


def _read(file: Path, length: int) -> Tensor | None:
    """The array of a file, or None where there is none of this length; a damaged file is told and taken for none."""
    try:
        values = torch.from_numpy(numpy.load(file, allow_pickle=False))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, TypeError) as error:
        _tell(file, f"{file} is damaged ({error}); the spectrum is computed anew.")
        return None
    return values if values.shape == (length,) else None


def _write(file: Path, values: Tensor) -> None:
    try:
        with replacing(file) as temporary, temporary.open("wb") as stream:
            numpy.save(stream, values.numpy())
    except OSError as error:
        reason = error.strerror or error
        _tell(file.parent, f"spectra cannot be kept in {file.parent} ({reason}); set {CACHE} elsewhere.")


def _tell(place: Path, sentence: str) -> None:
    if place not in _told:
        _told.add(place)
        print(f"smoa_lightning: {sentence}", file=sys.stderr)

"""The distributions of a teacher as files of a folder: found by the content of a row, added in whole pieces.

A piece is a file of safetensors whose name is the start of its SHA-256. For R rows with P positions it has ``keys`` and
``counts`` (R,) int64, ``tokens`` (P, k) int32, ``log_p`` (P, k) and ``log_rest`` (P,) float32, see
``objectives.top_distributions``. Pieces are read from disk on access.

A probability with its token takes 8 bytes. With float16 it would take 6, but from log p = -8 on float16 has steps of
0.008, so that p would be wrong by up to 0.4 %. For a student near its teacher (SmolLM2-135M, k = 64, KL of 0.0013 nats)
this changed the KL by 9 %.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.common.checksums import read_sealed, write_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.known_checksums import known_sha256
from smoa_lightning.data.rows.arrow_file import locked
from smoa_lightning.objectives.top_distributions import TopDistributions, joined

FACTS = "cache.json"
NAME = 32  # digits of the SHA-256 in the name of a piece


def key_of_row(content: bytes) -> int:
    """Return a 64-bit hash of what decides the distributions of a row.

    Among 10 million rows, the probability that two have the same hash is 3e-6.
    """
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


class DistributionFiles:
    """The distributions in a folder.

    Args:
        folder: The folder; it may be new.
        facts: What the distributions depend on, JSON-safe: name -> value.
        setting: The setting that names the folder, for messages.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], setting: str) -> None:
        self.folder, self.facts, self._setting = folder, dict(facts), setting
        self._pieces: dict[str, dict[str, torch.Tensor]] = {}
        self._keys = np.zeros(0, np.int64)  # of all rows, sorted
        self._places = np.zeros((0, 3), np.int64)  # piece, first position and end of each of them

    def check(self) -> None:
        """Compare the facts of the folder with those of this run.

        Raises:
            UserError: A fact differs, or the folder is none of a cache.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self._setting}: {self.folder} is a file and not a folder; name a folder")
        found = read_sealed(self.folder / FACTS, "remove the folder, and the next run makes it again")
        if found is None:
            return
        for name, value in self.facts.items():
            if (other := found.get(name)) != value:
                kind = f"other {name}" if name.endswith("s") else f"another {name}"
                raise UserError(
                    f"{self._setting}: {self.folder} has distributions of {kind} ({_difference(other, value)}): name "
                    "another folder, or remove this one"
                )

    def read(self) -> None:
        """Read which rows the folder has; pieces that were read before are not read again.

        Raises:
            UserError: The facts differ, or a piece is damaged.
        """
        self.check()
        for file in sorted(self.folder.glob("*.safetensors")):
            if file.stem not in self._pieces:
                self._pieces[file.stem] = self._read_piece(file)
        keys, places = [np.zeros(0, np.int64)], [np.zeros((0, 3), np.int64)]
        for number, piece in enumerate(self._pieces.values()):
            ends = piece["counts"].cumsum(0)
            keys.append(piece["keys"].numpy())
            places.append(torch.stack([torch.full_like(ends, number), ends - piece["counts"], ends], 1).numpy())
        whole = np.concatenate(keys)
        order = np.argsort(whole, kind="stable")
        self._keys, self._places = whole[order], np.concatenate(places)[order]

    def _read_piece(self, file: Path) -> dict[str, torch.Tensor]:
        try:
            if known_sha256(file)[:NAME] != file.stem:
                raise ValueError("its checksum is wrong")
            return load_file(file)
        except (SafetensorError, ValueError) as error:
            raise UserError(
                f"{self._setting}: {file} is damaged ({error}): remove it, and the next run computes its rows again"
            ) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Let one run at a time add rows; the others wait. A new folder gets its facts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / FACTS):
            self.check()
            if not (self.folder / FACTS).is_file():
                write_sealed(self.folder / FACTS, self.facts)
            yield

    def add(self, keys: np.ndarray, counts: np.ndarray, top: TopDistributions) -> None:
        """Write a piece; the file is complete or absent.

        Args:
            keys: (R,) int64, the hash of each row.
            counts: (R,) int64, the positions of each row.
            top: The distributions of all positions, in the order of the rows.
        """
        tensors = {"keys": torch.from_numpy(keys), "counts": torch.from_numpy(counts)}
        tensors |= {name: getattr(top, name).contiguous() for name in ("tokens", "log_p", "log_rest")}
        content = save(tensors)
        with replacing(self.folder / f"{hashlib.sha256(content).hexdigest()[:NAME]}.safetensors") as temporary:
            temporary.write_bytes(content)

    def lacking(self, keys: np.ndarray) -> np.ndarray:
        """Return the numbers of the keys that the folder lacks."""
        if not len(self._keys):
            return np.arange(len(keys))
        place = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return np.flatnonzero(self._keys[place] != keys)

    def find(self, keys: np.ndarray) -> TopDistributions | None:
        """Return the distributions of rows, one row after the other; None if a row is not there."""
        if len(keys) == 0 or len(self.lacking(keys)):
            return None
        pieces, columns = list(self._pieces.values()), int(self.facts["vocabulary"])
        found = []
        for piece, start, end in self._places[np.searchsorted(self._keys, keys)].tolist():
            tokens, log_p, log_rest = (pieces[piece][name][start:end] for name in ("tokens", "log_p", "log_rest"))
            found.append(TopDistributions(tokens, log_p, log_rest, columns))
        return joined(found)

    def masses(self, keys: np.ndarray) -> tuple[int, float, float]:
        """Return the number of positions of rows, and the mean and the smallest mass of their saved probabilities."""
        wanted = self._places[np.searchsorted(self._keys, keys)]
        total, summed, smallest = 0, 0.0, 1.0
        for number, piece in enumerate(self._pieces.values()):
            spans = wanted[wanted[:, 0] == number, 1:]
            if not len(spans):
                continue
            inside = np.zeros(len(piece["log_rest"]) + 1, np.int64)
            np.add.at(inside, spans[:, 0], 1)
            np.add.at(inside, spans[:, 1], -1)
            times = torch.from_numpy(inside.cumsum()[:-1])  # a row that a run has twice counts twice
            mass = -torch.expm1(piece["log_rest"].double())
            total, summed = total + int(times.sum()), summed + float((mass * times).sum())
            smallest = min(smallest, float(mass[times > 0].min()))
        return total, summed / max(total, 1), smallest


def _difference(there: Any, here: Any) -> str:
    """Return two values for a message; of digests by name, which differ."""
    if not isinstance(there, Mapping):
        return f"{there} there and {here} here"
    changed = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    return f"{', '.join(changed[:3])}{' and more' if len(changed) > 3 else ''}"

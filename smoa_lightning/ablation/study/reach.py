"""How far the trials of a cell may go beyond its ranges, as the description of a study stores it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.study.parameters import Parameter
from smoa_lightning.ablation.study.space import Study
from smoa_lightning.common.checksums import read_sealed
from smoa_lightning.records.record import STUDY

Reach = Mapping[str, Mapping[str, tuple[float, float]]]  # cell -> key -> the ends
REACH = "reach"


def with_reach(study: Study, reach: Reach) -> Study:
    """Return a study whose trials stay within these ends; a cell or a key that is not listed has none."""

    def limited(cell: str, parameter: Parameter) -> Parameter:
        return dataclasses.replace(parameter, reach=reach.get(cell, {}).get(parameter.key, (0.0, math.inf)))

    cells = (
        dataclasses.replace(cell, parameters=tuple(limited(cell.name, each) for each in cell.parameters))
        for cell in study.cells
    )
    return dataclasses.replace(study, cells=tuple(cells))


def describe_reach(study: Study) -> dict[str, dict[str, list[float | None]]]:
    """Return the ends of each cell that has some, for JSON; null is no end."""
    found = {
        cell.name: {
            each.key: [end if math.isfinite(end) else None for end in each.reach]
            for each in cell.parameters
            if each.reach != (0.0, math.inf)
        }
        for cell in study.cells
    }
    return {name: ends for name, ends in found.items() if ends}


def with_stored_reach(study: Study, folder: Path) -> Study:
    """Return a study with the ends that its folder describes: a worker has those of the process that started it."""
    stored: dict[str, Any] = (read_sealed(folder / STUDY) or {}).get(REACH, {})
    ends = {
        cell: {key: (float(low or 0.0), math.inf if high is None else float(high)) for key, (low, high) in each.items()}
        for cell, each in stored.items()
    }
    return with_reach(study, ends)

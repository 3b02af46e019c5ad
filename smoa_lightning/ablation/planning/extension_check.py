"""How far a search may widen the ranges of an adapter: it is tried on the backbone before the study starts."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

from smoa_lightning.ablation.study.extension import outside
from smoa_lightning.ablation.study.parameters import Parameter
from smoa_lightning.ablation.study.reach import with_reach
from smoa_lightning.ablation.study.space import Cell, Study
from smoa_lightning.common.console import ON_STDOUT
from smoa_lightning.common.fast_imports import import_command

logger = logging.getLogger(__name__)


def check_extension(study: Study) -> Study:
    """Return a study whose trials beyond the ends of ranges stop where the adapter refuses a value, and say so.

    An end of a range that is refused is reported too: other values of the range may still be right. Studies that widen
    no range of an adapter import nothing here.
    """
    if study.search is None or study.search.extend is None:
        return study
    searched = [(cell, parameter) for cell in study.cells for parameter in _of_the_adapter(cell)]
    if not searched:
        return study
    refusal = import_command("smoa_lightning.ablation.planning.estimate").refusal
    factor, trials = study.search.extend.factor, study.search.extend.trials
    reach: dict[str, dict[str, tuple[float, float]]] = {}
    for cell, parameter in searched:
        ends = [0.0, math.inf]
        for number, values in enumerate(outside(parameter, factor, trials)):
            end = last = parameter.low if number == 0 else parameter.high
            for value in (end, *values):
                if reason := refusal(cell, study, {parameter.key: value}):
                    ends[number] = last
                    what = "so trials near it will fail" if value == end else f"so search.extend stops at {last}"
                    text = f"the search of cell {cell.name}: {parameter.name} {value} is refused, {what}: {reason}"
                    logger.warning("%s", text, extra=ON_STDOUT)
                    break
                last = value
        reach.setdefault(cell.name, {})[parameter.key] = (ends[0], ends[1])
    return with_reach(study, reach)


def _of_the_adapter(cell: Cell) -> Iterator[Parameter]:
    return (each for each in cell.parameters if each.log and each.key.startswith(("model.adapter.", "model.prompt.")))

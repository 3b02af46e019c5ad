"""The curves of a run, read from its TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from smoa_lightning.records.tensorboard_tags import name_of

EVENT_FILES = "events.out.tfevents.*"


@dataclass(frozen=True)
class Curve:
    """The points of one scalar.

    Attributes:
        steps: Steps of the optimizer, ascending.
        values: The value at each step.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> float:
        """The last value."""
        return self.values[-1]


def read_curves(folder: Path) -> Mapping[str, Curve]:
    """Return metric -> curve of all scalars of a run; empty without an event file.

    A resumed run has several event files. Of each step the last point counts. Tags of versions before 0.2 are read too.
    """
    if not any(folder.glob(EVENT_FILES)):
        return {}
    # The import takes half a second.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = {"scalars": 0, "tensors": 1, "images": 1, "histograms": 1, "compressedHistograms": 1, "audio": 1}
    events = EventAccumulator(str(folder), size_guidance=everything)
    events.Reload()
    found: dict[str, dict[int, float]] = {}
    for tag in events.Tags()["scalars"]:
        found.setdefault(name_of(tag), {}).update({point.step: point.value for point in events.Scalars(tag)})
    return {name: Curve(*zip(*sorted(points.items()), strict=True)) for name, points in found.items()}


def in_steps_done(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Return the curves over the number of optimizer steps that were done.

    Lightning numbers the steps of a training from 0, and so does the log: its point at step 0 is the state after one
    step. Records and checkpoints count the steps that were done. Scores of the report rows are not logged in a step.
    """
    in_a_step = ("train/", "selection/", "rank/")
    return {
        name: replace(curve, steps=tuple(step + 1 for step in curve.steps)) if name.startswith(in_a_step) else curve
        for name, curve in curves.items()
    }

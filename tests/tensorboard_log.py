"""What TensorBoard reads of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import backend_context, metadata
from tensorboard.plugins.hparams.api_pb2 import Experiment


def _content(events: EventAccumulator, tag: str) -> bytes:
    content: bytes = events.summary_metadata[tag].plugin_data.content
    return content


def _experiment(events: EventAccumulator) -> Experiment:
    return metadata.parse_experiment_plugin_data(_content(events, metadata.EXPERIMENT_TAG))


def hparams(folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the columns of a run in the HPARAMS tab, by the shown names, and the last value of each scalar."""
    events = EventAccumulator(str(folder)).Reload()
    start = metadata.parse_session_start_info_plugin_data(_content(events, metadata.SESSION_START_INFO_TAG))
    shown = {info.name: info.display_name for info in _experiment(events).hparam_infos}
    values = {shown[n]: v.string_value or v.number_value or v.bool_value for n, v in start.hparams.items()}
    return values, {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}


def columns(folder: Path) -> list[str]:
    """Return the columns of the HPARAMS tab in TensorBoard's own order."""
    experiment = _experiment(EventAccumulator(str(folder)).Reload())
    backend_context._sort_and_reduce_to_hparams_limit(experiment)
    return [info.display_name for info in experiment.hparam_infos]

"""The entry of a run in TensorBoard's HPARAMS tab.

TensorBoard reads the metrics of the tab from scalars, and shows each scalar as a card. So the final numbers of a run,
which are single points, are columns of the entry, and the metrics of the tab are the last values of the curves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_SUCCESS,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from smoa_lightning.records.hparams import column_key, first_columns


def entry(columns: Mapping[str, Any], curves: Iterable[str] = ()) -> list[Summary]:
    """Return the three summaries of an entry: the columns of the tab, the values of the run, and its end.

    TensorBoard sorts the columns that differ before the others, and each part by name. It shows the first five.

    Args:
        columns: Column -> number or text.
        curves: Tags of scalars whose last values are the metrics of the tab.
    """
    first = first_columns(columns)
    start = SessionStartInfo()
    infos = []
    for name, value in columns.items():
        key, number = column_key(name), isinstance(value, int | float)
        kind = DATA_TYPE_FLOAT64 if number else DATA_TYPE_STRING
        infos.append(HParamInfo(name=key, display_name=name, type=kind, differs=name in first))
        if number:
            start.hparams[key].number_value = value
        else:
            start.hparams[key].string_value = str(value)
    experiment = Experiment(hparam_infos=infos, metric_infos=[MetricInfo(name=MetricName(tag=tag)) for tag in curves])
    return [
        _summary(metadata.EXPERIMENT_TAG, experiment=experiment),
        _summary(metadata.SESSION_START_INFO_TAG, session_start_info=start),
        _summary(metadata.SESSION_END_INFO_TAG, session_end_info=SessionEndInfo(status=STATUS_SUCCESS)),
    ]


def _summary(tag: str, **content: Any) -> Summary:
    data = HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data)
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))])

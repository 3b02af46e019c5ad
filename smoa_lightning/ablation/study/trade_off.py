"""What a study's report compares at equal scores: a second metric, interpolated along an axis.

trade_off:
  cost: general_nll     # compared between methods ...
  at: nll               # ... where all of them have the same score by this metric
  along: lr             # the axis whose values are the points of a method's curve
  share: 0.9            # the level: this share of the gain that every method reaches
  margin: 0.01          # differences of the cost below it do not matter, in the unit of reports
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smoa_lightning.ablation.study.axes import Axis, tied
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.configuration.yaml_files import LocatedYaml
from smoa_lightning.records.metric_table import METRICS

KEYS = ("cost", "at", "along", "share", "margin")
SHARE = 0.9  # near the best score that all reach, where curves are not flat yet


@dataclass(frozen=True)
class TradeOff:
    """A comparison at equal scores.

    Attributes:
        cost: Metric that is compared.
        at: Metric that is the same for all.
        along: Axis with the points of each curve.
        share: Share of the gain by ``at`` that every curve reaches.
        margin: Largest difference of the cost that does not matter, in the unit of reports; None without one.
    """

    cost: str
    at: str
    along: str
    share: float = SHARE
    margin: float | None = None


def parse_trade_off(
    tree: LocatedYaml, axes: Sequence[Axis], metrics: Sequence[str], labels: Sequence[Mapping[str, str]]
) -> TradeOff | None:
    """Read the trade-off of a study file; None without one.

    Args:
        tree: The study.
        axes: Its axes.
        metrics: The metrics of its report: objective and secondary.
        labels: The labels of its cells.

    Raises:
        UserError: A key or a value is unknown, the axis has no numbers, or another axis changes with it.
    """
    given = tree.value.get("trade_off")
    if given is None:
        return None
    where = tree.where("trade_off")
    if not isinstance(given, Mapping):
        raise UserError(f"{where}trade_off must be like {{cost: general_nll, at: nll, along: lr}}")
    for key in given:
        if key not in KEYS:
            raise UserError(f"{where}unknown key 'trade_off.{key}'; the nearest is trade_off.{nearest(key, KEYS, 1)}")
    for key in ("cost", "at"):
        if given.get(key) not in metrics:
            near = nearest(str(given.get(key)), metrics, 1)
            raise UserError(
                f"{where}trade_off.{key} is {given.get(key)!r}, but must be a metric of the report (objective or "
                f"secondary); the nearest is {near}"
            )
    if METRICS[given["cost"]].item is None:
        near = "general_nll" if METRICS[given["cost"]].of_general_text else "nll"
        raise UserError(
            f"{where}trade_off.cost is {given['cost']}, which has no score for each item, so two methods cannot be "
            f"compared by it: set a metric that has one, such as {near}"
        )
    if given["cost"] == given["at"]:
        raise UserError(f"{where}trade_off.cost and trade_off.at are both {given['at']}, but must be two metrics")
    by_name = {axis.name: axis for axis in axes}
    if given.get("along") not in by_name:
        near = nearest(str(given.get("along")), by_name, 1)
        raise UserError(
            f"{where}trade_off.along is {given.get('along')!r}, which is not an axis; the nearest is {near}"
        )
    for value in by_name[given["along"]].values:
        if isinstance(value.value, bool) or not isinstance(value.value, int | float):
            raise UserError(f"{where}trade_off.along is {given['along']}, but its value {value.label} is not a number")
    for other in by_name.keys() - {given["along"]}:
        if tied(labels, given["along"], other) and len({own[other] for own in labels}) > 1:
            raise UserError(
                f"{where}trade_off.along is {given['along']}, but {other} changes with it, so no two cells differ only "
                f"in {given['along']}: leave {other} out"
            )
    for key, low, high in (("share", 0.0, 1.0), ("margin", 0.0, math.inf)):
        number = given.get(key, 0.5)
        if isinstance(number, bool) or not isinstance(number, int | float) or not low < number < high:
            most = " and below 1" if high < math.inf else ""
            raise UserError(f"{where}trade_off.{key} is {number!r}, but must be a number above 0{most}")
    return TradeOff(**given)

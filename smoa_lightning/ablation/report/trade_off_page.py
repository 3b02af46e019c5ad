"""The section of a report on the trade-off of a study."""

from __future__ import annotations

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.estimates import interval_text
from smoa_lightning.ablation.report.tables import compared_table
from smoa_lightning.ablation.report.trade_off import Curve
from smoa_lightning.records.page.document import Block, Heading, Paragraph, Points, Table, columns


def trade_off_blocks(analysis: Analysis) -> list[Block]:
    """Return the section; empty without a trade-off."""
    found = analysis.trade_off
    if found is None:
        return []
    plan, shown = found.plan, [curve for curve in found.curves if curve.cost is not None]
    cost, at, along = plan["cost"], plan["at"], plan["along"].rpartition(".")[2]
    blocks: list[Block] = [Heading(f"{cost} at equal {at}"), Paragraph(_note(cost, at, along, plan["share"]))]
    if shown:
        titles = ["curve", f"level of {at}", f"between {along}", f"mean {cost}", "95 % interval"]
        rows = tuple(_row(curve) for curve in shown)
        blocks += [Table("trade_off", f"{cost} where {at} is equal.", columns(titles, 1), rows)]
    if found.comparisons:
        blocks += [compared_table("trade_off_differences", "Differences from the baseline.", found.comparisons)]
        blocks += [Points(tuple(each.verdict.sentence for each in found.comparisons))]
    if found.gains:
        caption = f"Change of {cost} from the base model."
        blocks += [compared_table("trade_off_gains", caption, found.gains)]
    return [*blocks, *([Points(tuple(f"{sentence}." for sentence in found.refused))] if found.refused else [])]


def _note(cost: str, at: str, along: str, share: float) -> str:
    return (
        f"Cells that differ only in {along} are the points of a curve, which begins at the base model. The level is "
        f"the {at} with {share:.0%} of the gain that every curve reaches. The {cost} of each seed and item is "
        "interpolated between the point that first reaches the level and the one before it. Differences hold for new "
        f"seeds and new items of {cost}, on the same report rows. p and intervals are corrected for the comparisons of "
        "each table."
    )


def _row(curve: Curve) -> tuple[str, ...]:
    mean = curve.cost.estimate if curve.cost is not None else None
    assert mean is not None  # a curve with a cost has one
    ends = "" if mean.low is None or mean.high is None else interval_text(mean.low, mean.high)
    return curve.name, f"{curve.level:.4g}", " and ".join(curve.place), f"{mean.value:.4f}", ends

"""The results of a study in sentences: the headline, what is established, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from smoa_lightning.ablation.report.analysis import Analysis
from smoa_lightning.ablation.report.cells import CellResult, decimals, unit
from smoa_lightning.ablation.report.comparisons import BASE_MODEL, Comparison
from smoa_lightning.ablation.report.folder import same_rows
from smoa_lightning.ablation.statistics import MINIMUM_SEEDS, counted
from smoa_lightning.ablation.statistics.verdict import EQUIVALENT, NOT_ESTABLISHED, as_sentence
from smoa_lightning.ablation.study.sizes import different_sizes
from smoa_lightning.ablation.study.study_compatibility import LATE
from smoa_lightning.records.score_notes import score_notes

MOST_NAMES = 4  # of cells in one sentence


def headline(analysis: Analysis) -> str:
    """Return the result of the study in one sentence."""
    comparisons, where = analysis.comparisons, "the baseline"
    if not comparisons:
        comparisons, where = analysis.gains, BASE_MODEL
    if not comparisons and analysis.incomparable:
        return "No difference was tested, since no two cells can be compared yet."
    if not comparisons:
        return "The study has no baseline and no score of the base model, so no difference was tested."
    baselines = {each.baseline for each in comparisons}
    name = f"{where} {baselines.pop()}" if len(baselines) == 1 and where != BASE_MODEL else where
    kinds: dict[str, list[Comparison]] = {}
    for each in comparisons:
        kinds.setdefault(each.verdict.outcome, []).append(each)
    rest = len(kinds.get(NOT_ESTABLISHED, []))
    if rest < len(comparisons):
        parts = [
            f"{_cells_are(kinds[kind])} established to be {words} {name} ({_largest(kinds[kind])})"
            for kind, words in (("better", "better than"), ("worse", "worse than"))
            if kind in kinds
        ]
        if EQUIVALENT in kinds:
            word = unit(kinds[EQUIVALENT][0].metric)[1]
            margin = f"the margin of {analysis.margin:g}{f' {word}' if word else ''}"
            parts.append(f"{_cells_are(kinds[EQUIVALENT])} established to be equivalent to {name} within {margin}")
        if rest:
            parts.append(f"for {counted(rest, 'cell')} no difference is established")
        return as_sentence("; ".join(parts))
    if max(each.difference.n_seeds for each in comparisons) < MINIMUM_SEEDS:
        why = f"at least {MINIMUM_SEEDS} seeds are needed"
    else:
        why = "the differences may be chance"
    which = "The one cell is not" if len(comparisons) == 1 else f"None of {counted(len(comparisons), 'cell')} is"
    return f"{which} shown to differ from {name}: {why}."


def _cells_are(found: Sequence[Comparison]) -> str:
    return f"{counted(len(found), 'cell')} {'is' if len(found) == 1 else 'are'}"


def _largest(found: Sequence[Comparison]) -> str:
    """Name the largest of some differences."""
    largest = max(found, key=lambda each: abs(each.difference.value))
    factor, word = unit(largest.metric)
    size = f"{abs(factor * largest.difference.value):.{decimals(largest.metric)}f}{f' {word}' if word else ''}"
    return f"{'' if len(found) == 1 else 'most: '}{largest.cell}, by {size}"


def opening(analysis: Analysis) -> str:
    """Return what was run, and the score of the base model."""
    description = analysis.study.description
    cells, runs, seeds = len(analysis.cells), len(analysis.study.finished), len(description["seeds"])
    metrics = sorted({cell.metric for cell in analysis.cells})
    better = "higher is better" if analysis.direction == "maximize" else "lower is better"
    text = f"{counted(cells, 'cell')} with {counted(seeds, 'seed')} each, {runs} of {cells * seeds} final runs "
    text += f"finished. Scored by {', '.join(metrics)} on the report rows ({better})."
    for base, cells_of in analysis.base_models:
        where = (
            "" if len(cells_of) == cells else f" for {cells_of[0].name} and the cells with the same rows and backbone"
        )
        text += f" The base model (the backbone before training) has {cells_of[0].metric} {base.score:.3f}"
        text += "" if math.isnan(base.error) else f" ± {base.error:.3f} (standard error over items)"
        text += f"{where}, over {counted(len(base.by_seed), 'seed')}." if base.by_seed else f"{where}."
    return " ".join([text, *score_notes(run.record for run in analysis.study.finished)])


def summary(analysis: Analysis) -> list[str]:
    """Return one sentence for each comparison, the established ones first."""
    planned = [f"Planned contrast {each.name}: {each.verdict.sentence}" for each in analysis.contrasts]
    late = analysis.study.description.get(LATE, [])
    changed = [f"The study was changed when it had results, which p and intervals do not know: {'; '.join(late)}."]
    found = [*_gain_summary(analysis), *planned, *_difference_summary(analysis), *_sizes(analysis)]
    return [*changed, *found] if late else found


def _sizes(analysis: Analysis) -> Iterator[str]:
    """Yield a sentence for each baseline whose cells have different sizes."""
    baselines: Mapping[str, str] = analysis.study.description["baselines"]
    for baseline in dict.fromkeys(baselines.values()):
        cells = [cell for cell in analysis.cells if baselines.get(cell.name) == baseline]
        if sentence := different_sizes({cell.name: cell.costs.get("parameters", 0) for cell in cells}):
            yield as_sentence(sentence)


def _gain_summary(analysis: Analysis) -> list[str]:
    """Say which cells are better or worse than the base model, and for which cells neither is established."""
    kinds: dict[str, list[str]] = {}
    for gain in analysis.gains:
        kinds.setdefault(gain.verdict.outcome, []).append(gain.cell)
    beginnings = {
        "better": "Established to be better than the base model",
        "worse": "Established to be WORSE than the base model",
        EQUIVALENT: "Equivalent to the base model within the margin",
        NOT_ESTABLISHED: "Not shown to differ from the base model",
    }
    sentences = []
    for kind, names in kinds.items():
        which = "" if len(names) == len(analysis.gains) else f", {_named(names)}"
        sentences.append(f"{beginnings[kind]}: {len(names)} of {counted(len(analysis.gains), 'cell')}{which}.")
    return sentences


def _named(cells: Sequence[str]) -> str:
    more = f" and {len(cells) - MOST_NAMES} more (gains.csv has all)" if len(cells) > MOST_NAMES + 1 else ""
    return "; ".join(cells[:MOST_NAMES] if more else cells) + more


def _difference_summary(analysis: Analysis) -> list[str]:
    if not analysis.comparisons and not analysis.incomparable:
        return ["The study has no baseline, so no difference was tested."]
    established = [c for c in analysis.comparisons if c.verdict.established]
    open_ = [c for c in analysis.comparisons if not c.verdict.established]
    found = []
    if not established and analysis.comparisons:
        number = counted(len(analysis.comparisons), "comparison")
        found.append(
            f"No difference from the baseline is established: none of {number} has an adjusted p below 0.05 with "
            "enough seeds."
        )
    found += [c.verdict.sentence for c in established]
    found += [c.verdict.sentence for c in open_]
    found += [f"{sentence}." for sentence in analysis.incomparable]
    best = best_cell(analysis)
    if best is not None and open_ and best.name not in {c.cell for c in established}:
        baseline = analysis.study.description["baselines"].get(best.name)
        if baseline != best.name:
            found.append(f"{best.name} has the best mean, but its difference from the baseline may be chance.")
    return found


def best_cell(analysis: Analysis) -> CellResult | None:
    """Return the cell with the best mean; None if the cells have different metrics or different rows."""
    scored = [cell for cell in analysis.scored if cell.estimate is not None]
    rows = {cell.runs[0].items or same_rows(analysis.study.description).get(cell.name) for cell in scored}
    if not scored or len({cell.metric for cell in scored}) > 1 or len(rows) > 1:
        return None
    choose = max if analysis.direction == "maximize" else min
    return choose(scored, key=lambda cell: cell.estimate.value if cell.estimate is not None else 0.0)


def missing(analysis: Analysis) -> list[str]:
    """Return what is missing, failed or left out."""
    found = [
        f"{cell.name}: {len(cell.runs)} of {cell.planned} seeds are finished."
        for cell in analysis.cells
        if len(cell.runs) < cell.planned
    ]
    for each in analysis.study.failed:
        tried = f" after {counted(each['attempts'], 'attempt')}" if each["attempts"] else ""
        found.append(f"{each['run']} failed{tried}: {each['reason']}")
    found += [f"{sentence}." for sentence in analysis.study.damaged]
    found += [*_not_measured(analysis)]
    if others := analysis.study.other_seeds:
        names = f"{'seed' if len(others) == 1 else 'seeds'} {', '.join(map(str, others))}"
        found.append(f"Finished runs with {names} are left out: the study has other seeds now.")
    found += [
        f"{c.cell} and its baseline do not both have these seeds, which are not compared: "
        f"{', '.join(map(str, c.dropped))}."
        for c in analysis.comparisons
        if c.dropped
    ]
    return found or ["Nothing is missing: every planned run is finished and was read."]


def _not_measured(analysis: Analysis) -> Iterator[str]:
    """Yield a sentence for each metric, trade-off or score of the base model that the study needs and runs lack."""
    study = analysis.study
    for metric in study.description.get("secondary", ()):
        without = [run for run in study.finished if metric not in run.secondary]
        if without:
            value = without[0].metrics.get(f"report/{metric}")
            shown = "" if value is None else f" ({value})"
            yield (
                f"{counted(len(without), 'run')} of {len(study.finished)} without a finite {metric}, such as "
                f"{without[0].name}{shown}: left out of the tables of {metric}."
            )
    plan = study.description.get("trade_off")
    if plan is not None and analysis.trade_off is None:
        yield f"There is no trade-off of {plan['cost']} at equal {plan['at']}: no finished run has both."
    for base, cells in analysis.base_models:
        lacking = {run.seed for cell in cells for run in cell.runs} - base.by_seed.keys() if base.by_seed else set()
        if lacking:
            yield (
                f"The base model of {_named([cell.name for cell in cells])} was not scored with the seeds "
                f"{', '.join(map(str, sorted(lacking)))}: they are left out of the differences from the base model."
            )
    without_base = [cell.name for cell in analysis.scored if cell.name not in study.base_models]
    if without_base:
        scoring = sorted({study.description["untouched"][name] for name in without_base})
        yield (
            f"The base model has no score for {_named(without_base)}: no finished run of {_named(scoring)} has "
            "measured it."
        )

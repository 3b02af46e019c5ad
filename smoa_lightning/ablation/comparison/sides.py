"""The sides of a comparison: runs, groups of runs that differ in their seed, and a base model; each with a label."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoa_lightning.ablation.comparison.scored_run import ScoredRun, base_of, scored_run
from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.records.base_seeds import protocols_of, seeds_of_base
from smoa_lightning.records.record import content, flat

BASE = "base"  # in the place of a folder: the base model of the first run
BASE_LABEL = "base model"
SEEDS = ("seed_everything", "data.seed", "model.adapter_seed")


@dataclass(frozen=True)
class Side:
    """One run, or the runs of one group.

    Attributes:
        label: Its name in all tables.
        runs: The runs, by seed.
        is_for_all_seeds: Whether it is a base model with one score for all seeds, as without few-shot prompts and a
            new head.
    """

    label: str
    runs: tuple[ScoredRun, ...]
    is_for_all_seeds: bool = False

    @property
    def first(self) -> ScoredRun:
        """The first run."""
        return self.runs[0]

    @property
    def is_base(self) -> bool:
        """Whether it is a base model."""
        return self.first.part == BASE

    @property
    def by_seed(self) -> dict[int, ScoredRun]:
        """Seed -> run."""
        return {run.seed: run for run in self.runs}


def read_sides(names: Sequence[str], baseline: str | None, by_seed: bool) -> list[Side]:
    """Read what is compared; the baseline is the first side.

    Args:
        names: Folders of runs; ``base`` is the base model of the first run.
        baseline: One of the names, or ``base``; None is the first name.
        by_seed: Whether runs that differ only in their seeds form one side.

    Raises:
        UserError: Fewer than two sides, the same run twice, a folder without a finished run, or an unknown baseline.
    """
    names = list(dict.fromkeys(names)) if names.count(BASE) > 1 else list(names)
    folders = [Path(name).expanduser() for name in names if name != BASE]
    if not folders:
        raise UserError("compare needs the folder of a run; `base` is the base model of the first run")
    _refuse_twice(folders)
    start = _baseline(names, baseline)
    if len({*names, start}) < 2:
        raise UserError(f"compare needs two runs; `compare {names[0]} base` compares a run with its base model")
    runs = [scored_run(folder) for folder in folders]
    _refuse_copies(runs)
    groups = _grouped(runs) if by_seed else [[run] for run in runs]
    sides = [Side(label, tuple(group)) for label, group in zip(labels(groups), groups, strict=True)]
    if start == BASE or BASE in names:
        base = _base_side(runs)
        sides.insert(0 if start == BASE else names.index(BASE), base)
    chosen = next(side for side in sides if _named(side, start))
    if len(sides) < 2:
        raise UserError(
            f"compare: all {len(runs)} runs differ only in their seed, so --group seed leaves one group to compare; "
            "add a run with other settings, or `base`"
        )
    return [chosen, *(side for side in sides if side is not chosen)]


def _base_side(runs: Sequence[ScoredRun]) -> Side:
    """Return the base model of the first run, or of the first run of each seed if prompts or a new head follow it."""
    if len({seeds_of_base(run.record["config"], protocols_of(run.record)) for run in runs}) == 1:
        return Side(BASE_LABEL, (base_of(runs[0]),), is_for_all_seeds=True)
    scored = [run for run in runs if any(name.startswith("base/") for name in run.record["metrics"])]
    first = {run.seed: run for run in reversed(scored or runs)}
    return Side(BASE_LABEL, tuple(base_of(first[seed]) for seed in sorted(first)))


def _named(side: Side, name: str) -> bool:
    if name == BASE:
        return side.is_base
    return not side.is_base and any(run.folder == Path(name).expanduser() for run in side.runs)


def _baseline(names: Sequence[str], baseline: str | None) -> str:
    if baseline is None:
        return names[0]
    if baseline == BASE:
        return BASE
    wanted = Path(baseline).expanduser().resolve()
    for name in names:
        if name != BASE and Path(name).expanduser().resolve() == wanted:
            return name
    raise UserError(
        f"compare: --baseline {baseline} is none of the runs; did you mean {nearest(baseline, [*names, BASE], 1)}?"
    )


def _refuse_twice(folders: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for folder in folders:
        place = folder.resolve()
        if place in seen:
            also = "" if seen[place] == folder else f", also as {seen[place]}"
            raise UserError(f"compare: the run {folder} is named twice{also}; name each run once")
        seen[place] = folder


def _refuse_copies(runs: Sequence[ScoredRun]) -> None:
    seen: dict[str, ScoredRun] = {}
    for run in runs:
        text = json.dumps(run.record, sort_keys=True)
        if text in seen:
            raise UserError(f"compare: {run.folder} is a copy of {seen[text].folder}; name each run once")
        seen[text] = run


def _grouped(runs: Sequence[ScoredRun]) -> list[list[ScoredRun]]:
    """Return runs with the same settings but for the seeds as one group, in the order of their first runs."""
    groups: dict[str, list[ScoredRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(without_seeds(run.record), sort_keys=True, default=str), []).append(run)
    for group in groups.values():
        group.sort(key=lambda run: run.seed)
        for one, other in itertools.pairwise(group):
            if one.seed == other.seed:
                raise UserError(
                    f"compare: {one.folder} and {other.folder} have the same settings and the same seed {one.seed}, so "
                    "--group seed cannot use both; leave one out"
                )
    return list(groups.values())


def without_seeds(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide a result, without the seeds; and the sources that were used."""
    settings = {key: value for key, value in flat(content(record["config"])).items() if key not in SEEDS}
    return settings | {"sources": record.get("sources")}


def labels(groups: Sequence[Sequence[ScoredRun]]) -> list[str]:
    """Return a short label for each group: the parts of the run's name that not all runs share.

    Groups with equal parts also have the end of their folder, and groups with equal names only that.
    """
    whole = [str(group[0].record["name"]) for group in groups]
    if any(len(group) > 1 for group in groups):
        whole = [_without_seed(name) for name in whole]
    names = [re.split(r"-(?=[^-])", name) for name in whole]
    shared = set(names[0]).intersection(*names[1:]) if len(names) > 1 else set()
    short = ["-".join(part for part in name if part not in shared) for name in names]
    if len(names) == 1:
        return ["-".join(names[0])]
    if not any(short):
        return _folder_labels(groups)
    short = [text or name for text, name in zip(short, whole, strict=True)]
    found = list(short)
    for text in {text for text in short if short.count(text) > 1}:
        places = [place for place, each in enumerate(short) if each == text]
        for place, end in zip(places, _folder_labels([groups[place] for place in places]), strict=True):
            found[place] = end if text in end else f"{text} {end}"
    return found


def _folder_labels(groups: Sequence[Sequence[ScoredRun]]) -> list[str]:
    """Return the shortest ends of the groups' folders that differ, without seeds if there are several seeds."""
    folders = [group[0].folder.resolve() for group in groups]
    if all(len(group) == 1 for group in groups):
        return _tails(folders)
    tails = _tails(folders, _without_seed)
    return [f"{t} ({len(g)} seeds)" if len(g) > 1 else t for t, g in zip(tails, groups, strict=True)]


def _without_seed(name: str) -> str:
    """Return the name of a run without its seed.

    >>> _without_seed("piqa-lora-r32-seed0-smollm2"), _without_seed("m=lora,seed=1"), _without_seed("my/seed_3")
    ('piqa-lora-r32-smollm2', 'm=lora', 'my')
    """
    return re.sub(r"(^|[-_,./ ])seed[-_=]?\d+(?![^\W_])", "", name, flags=re.IGNORECASE).strip("-_,./ ")


def _tails(folders: Sequence[Path], short: Callable[[str], str] = str) -> list[str]:
    """Return the shortest ends of paths that differ after they were shortened; else whole paths.

    >>> _tails([Path("/r/a/version_0"), Path("/r/b/version_0")])
    ['a/version_0', 'b/version_0']
    """
    for length in range(1, max(len(folder.parts) for folder in folders) + 1):
        tails = [short("/".join(folder.parts[-length:])) for folder in folders]
        if all(tails) and len(set(tails)) == len(tails):
            return tails
    return [str(folder) for folder in folders]

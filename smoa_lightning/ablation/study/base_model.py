"""Which runs score the base model for which cells: one for all cells with the same backbone, rows and prompts.

Few-shot prompts and a new head may follow the seed of the run. Then the final run of each seed scores the base model.
"""

from __future__ import annotations

from smoa_lightning.ablation.study.baseline import TEXTS
from smoa_lightning.ablation.study.objective import tasks_of
from smoa_lightning.ablation.study.space import Cell, Study
from smoa_lightning.configuration.composition import setting_of
from smoa_lightning.records.base_seeds import NEW_HEAD, seeds_of_base
from smoa_lightning.records.selection import ON_TRAINED

# Data settings that only affect training and speed: the base model has the same score for all their values.
TRAINING = {
    "augmentation", "batch_size", "bucket_batches", "cache", "limit_train_rows", "num_workers", "packing",
    "pad_multiple", "pin_memory", "train_per_class",
    "seed", "selection_rows", "stream_buffer_rows", "stream_epoch_batches", "streaming",
}  # fmt: skip
# They also choose the solved rows before each prompt, so that with few-shot prompts the base model depends on them.
CHOOSE_SHOTS = {"limit_train_rows", "seed", "selection_rows", "train_per_class"}
# Settings of the model that the base model depends on; all but the backbone are those of a new head.
MODEL = ("backbone", "head_init", "adapter_seed")
# A search of these settings gives cells different best values, so each cell has a base model of its own.
SEARCHED = ("data.", *(f"model.{name}" for name in MODEL), "forgetting.", "trainer.precision")


def scored_with(study: Study) -> dict[str, str]:
    """Return the name of each cell -> the name of the cell that scores the base model for it, in its first final run.

    Of the cells that share a score, this is the baseline if it is among them, else the first cell.
    """
    groups: dict[str, list[str]] = {}
    for cell in study.cells:
        given = cell.settings.get("data") or {}
        ignored = TRAINING - CHOOSE_SHOTS if given.get("num_fewshot") else TRAINING
        ignored = ignored - {"limit_train_rows"} if given.get("selection") == ON_TRAINED else ignored
        data = {key: value for key, value in given.items() if key not in ignored}
        if follows_seed(cell):
            data["seed"] = cell.flags.get("seed_everything", 0)  # cells with a ``seed_offset`` have other prompts
        model = cell.settings.get("model") or {}
        model = {key: model.get(key) for key in (MODEL if NEW_HEAD & _protocols(cell) else MODEL[:1])}
        searched = [p.key for p in cell.parameters if p.key.startswith(SEARCHED)]
        own = cell.name if {key.removeprefix("data.") for key in searched} - ignored else ""
        scored = {"data": data, "model": model, "teacher": cell.scoring_teacher}
        scored |= {key: setting_of(cell.settings, key) for key in (*TEXTS, "trainer.precision")}
        key = study.resolver.signature(scored, own=own)
        groups.setdefault(key, []).append(cell.name)
    baselines = set(study.baselines.values())
    found: dict[str, str] = {}
    for group in groups.values():
        scoring = next((name for name in group if name in baselines), group[0])
        found |= dict.fromkeys(group, scoring)
    return found


def base_seeds(study: Study, cell: Cell) -> tuple[int, ...]:
    """Return the seeds whose final runs score the base model for a cell: the first one, or all with other prompts."""
    searched = any(parameter.key in ("data.num_fewshot", "data.seed") for parameter in cell.parameters)
    return study.seeds if searched or follows_seed(cell) else study.seeds[:1]


def follows_seed(cell: Cell) -> bool:
    """Whether the few-shot prompts or the new head of the base model differ with ``seed_everything``."""
    return None in seeds_of_base(cell.settings, _protocols(cell))


def _protocols(cell: Cell) -> set[str]:
    return {protocol.name for protocol in tasks_of(cell.settings, "report").values()}

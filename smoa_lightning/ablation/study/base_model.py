"""Which run scores the base model for which cells: once for all cells with the same backbone and report rows."""

from __future__ import annotations

from smoa_lightning.ablation.study.space import Study

# Data settings that only affect training and speed: the base model has the same score for all their values.
TRAINING = {
    "batch_size", "bucket_batches", "cache", "limit_train_rows", "num_workers", "packing", "pad_multiple", "pin_memory",
    "seed", "selection_rows", "stream_buffer_rows", "stream_epoch_batches", "streaming",
}  # fmt: skip
# They also choose the solved rows before each prompt, so that with few-shot prompts the base model depends on them.
CHOOSE_SHOTS = {"limit_train_rows", "seed", "selection_rows"}


def scored_with(study: Study) -> dict[str, str]:
    """Return the name of each cell -> the name of the cell that scores the base model for it, in its first final run.

    Of the cells that share a score, this is the baseline if it is among them, else the first cell.
    """
    groups: dict[str, list[str]] = {}
    for cell in study.cells:
        given = cell.settings.get("data") or {}
        ignored = TRAINING - CHOOSE_SHOTS if given.get("num_fewshot") else TRAINING
        data = {key: value for key, value in given.items() if key not in ignored}
        backbone = (cell.settings.get("model") or {}).get("backbone")
        key = study.resolver.signature({"data": data, "model": {"backbone": backbone}})
        groups.setdefault(key, []).append(cell.name)
    baselines = set(study.baselines.values())
    found: dict[str, str] = {}
    for group in groups.values():
        scoring = next((name for name in group if name in baselines), group[0])
        found |= dict.fromkeys(group, scoring)
    return found

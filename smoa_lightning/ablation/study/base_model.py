"""Which run scores the untouched backbone, and for which cells: once for all with the same backbone and report rows."""

from __future__ import annotations

from smoa_lightning.ablation.study.space import Study

# Settings of the data that concern training and speed alone: the untouched backbone scores the same under all of them.
TRAINING = {
    "batch_size", "bucket_batches", "cache", "limit_train_rows", "num_workers", "packing", "pad_multiple", "pin_memory",
    "seed", "selection_rows", "stream_buffer_rows", "stream_epoch_batches", "streaming",
}  # fmt: skip


def scored_with(study: Study) -> dict[str, str]:
    """Return the name of each cell -> that of the cell whose first final run scores the untouched backbone for it.

    It is the baseline where one is among the cells that share a score, else the first of them.
    """
    groups: dict[str, list[str]] = {}
    for cell in study.cells:
        data = {key: value for key, value in (cell.settings.get("data") or {}).items() if key not in TRAINING}
        backbone = (cell.settings.get("model") or {}).get("backbone")
        key = study.resolver.signature({"data": data, "model": {"backbone": backbone}})
        groups.setdefault(key, []).append(cell.name)
    baselines = set(study.baselines.values())
    found: dict[str, str] = {}
    for group in groups.values():
        scoring = next((name for name in group if name in baselines), group[0])
        found |= dict.fromkeys(group, scoring)
    return found

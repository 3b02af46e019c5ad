"""Run names and flat hyper-parameters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoa_lightning.adapters.method_names import num_subspaces_of, rank_of, size_names, strategy_name

if TYPE_CHECKING:
    from smoa_lightning.data.datamodule import TaskDataModule
    from smoa_lightning.training.module import FineTuneModule


def source_name(module: FineTuneModule, data: TaskDataModule) -> str:
    """Return the source of backbone and data; ``<backbone>+<data>`` for two different sources."""
    backbone = module.location.source
    return backbone if backbone == data.source else f"{backbone}+{data.source}"


def _task_name(data: TaskDataModule) -> str:
    """Return the task, with its protocol or published rules and few-shot count if they are not the defaults."""
    rows = next(iter(data.sets.reported.values()))
    plain = rows.protocol.name == rows.task.protocols[0].name
    protocol = getattr(rows.protocol, "rules", None) or rows.protocol.name
    parts = [data.name, "" if plain else protocol, f"{data.num_fewshot}shot" if data.num_fewshot else ""]
    return "_".join(filter(None, parts))


def backbone_name(module: FineTuneModule) -> str:
    """Return the short name of the backbone: ``smollm2-135m`` for ``HuggingFaceTB/SmolLM2-135M`` and its folder."""
    if module.location.source == "embedded":
        return "embedded"
    return re.sub(r"[^a-z0-9._]+", "-", Path(module.location.name).name.lower()).strip("-.") or module.location.source


def run_name(module: FineTuneModule, data: TaskDataModule, seed: Any) -> str:
    """Return task, strategy, its sizes, seed and backbone in one name, and the source of the rows if it differs.

    A strategy without a rank or without subspaces has no ``r`` or ``K`` in its name.
    """
    adapter, place = module.adapter_config, backbone_name(module)
    if data.source != module.location.source:
        place = f"{place}+{data.source}"
    parts = [
        _task_name(data),
        strategy_name(adapter, module.frozen_backbone, module.prompt_config),
        *size_names(adapter),
        *size_names(module.prompt_config),
        *(["distilled"] if module.distillation is not None else []),
        f"seed{seed}",
        place,
    ]
    return "-".join(parts)


def earlier_names(module: FineTuneModule, data: TaskDataModule, config: dict[str, Any]) -> list[str]:
    """Return the name that version 0.1 gives the same run: an interrupted run may have a folder of this name.

    It is empty if the user has named the run.
    """
    if config["run"]["name"] is not None:
        return []
    adapter, seed = module.adapter_config, config["seed_everything"]
    parts = [_task_name(data), strategy_name(adapter, module.frozen_backbone)]
    parts += [f"r{rank_of(adapter)}", f"K{num_subspaces_of(adapter)}", f"seed{seed}", source_name(module, data)]
    return ["-".join(parts)]


def flat_hyperparameters(module: FineTuneModule, data: TaskDataModule, config: dict[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters for TensorBoard, with the same keys and types for all strategies.

    TensorBoard drops runs with different keys or types. A strategy without a setting therefore has a number there:
    rank 0, one subspace, alpha 0.
    """
    adapter = module.adapter_config
    trainer = config["trainer"]
    optimizer = config["model"]["optimizer"]
    dropouts = [getattr(adapter, f, None) for f in ("dropout", "lora_dropout", "hira_dropout")]
    alphas = [getattr(adapter, f, None) for f in ("alpha", "lora_alpha")]
    if hasattr(adapter, "alpha"):
        alphas.append(rank_of(adapter))  # SMoA's default: alpha = r
    return {
        "task": _task_name(data),
        "strategy": strategy_name(adapter, module.frozen_backbone, module.prompt_config),
        "rank": rank_of(adapter),
        "num_subspaces": num_subspaces_of(adapter),
        "alpha": float(next((a for a in alphas if isinstance(a, int | float)), 0)),
        "dropout": float(next((d for d in dropouts if isinstance(d, int | float)), 0)),
        "learning_rate": float(optimizer["init_args"]["lr"]) if isinstance(optimizer, dict) else -1.0,
        "warmup": float(module.warmup),
        "batch_size": int(data.batch_size),
        "accumulate_grad_batches": int(trainer["accumulate_grad_batches"]),
        "max_epochs": int(trainer["max_epochs"] or -1),
        "loss_on": data.encoding.loss_on,
        "dtype": module.backbone_config.dtype,
        "backbone": module.location.name if module.location.source != "embedded" else "embedded",
        "source": source_name(module, data),
        "seed": int(config["seed_everything"]),
    }

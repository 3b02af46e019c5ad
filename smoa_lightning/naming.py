"""Names that tell what a run is: strategy labels, flat hyper-parameters, run names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft import PeftConfig

if TYPE_CHECKING:
    from smoa_lightning.data.datamodule import TaskDataModule
    from smoa_lightning.module import FineTuneModule


def strategy_name(adapter: PeftConfig | None, frozen: bool) -> str:
    """Return the name of a strategy: ``frozen``, ``full``, ``dora``, ``hira``, ``smoa_spectral_blocks``, ...

    Settings that make another method of the same config class are part of the name.
    """
    if adapter is None:
        return "frozen" if frozen else "full"
    name = str(getattr(adapter.peft_type, "value", adapter.peft_type)).lower()
    if getattr(adapter, "use_dora", False):
        name = "dora"
    if getattr(adapter, "use_rslora", False):
        name = f"rs{name}"
    if isinstance(getattr(adapter, "init_lora_weights", None), str):
        name = f"{name}_{adapter.init_lora_weights}"  # type: ignore[attr-defined]
    if hasattr(adapter, "partition"):
        name = f"{name}_{adapter.partition}"
        if adapter.modulation != "weight":  # type: ignore[attr-defined]
            name = f"{name}_{adapter.modulation}_modulation"  # type: ignore[attr-defined]
    return name


def rank_of(adapter: PeftConfig | None) -> int:
    """Return the rank setting, 0 for a strategy without one."""
    rank = getattr(adapter, "r", 0)
    return rank if isinstance(rank, int) else 0


def num_subspaces_of(adapter: PeftConfig | None) -> int:
    """Return the number of subspaces, 1 for every strategy that has no such setting."""
    return getattr(adapter, "num_subspaces", 1)


def source_name(module: FineTuneModule, data: TaskDataModule) -> str:
    """Return where backbone and data come from, once if it is the same place, else ``<backbone>+<data>``."""
    backbone = module.location.source
    return backbone if backbone == data.source else f"{backbone}+{data.source}"


def run_name(module: FineTuneModule, data: TaskDataModule, seed: Any) -> str:
    """Return task, strategy, rank, K, seed and source in one name."""
    adapter = module.adapter_config
    parts = [data.task.name, strategy_name(adapter, module.frozen)]
    parts += [f"r{rank_of(adapter)}", f"K{num_subspaces_of(adapter)}", f"seed{seed}", source_name(module, data)]
    return "-".join(parts)


def flat_hyperparameters(module: FineTuneModule, data: TaskDataModule, config: dict[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters for TensorBoard: the same keys with values of the same type for every strategy.

    Numbers stand in where a strategy has no such setting (rank 0, one subspace, alpha 0): TensorBoard drops runs whose
    keys or types differ from the others'.
    """
    adapter = module.adapter_config
    trainer = config["trainer"]
    optimizer = config["model"]["optimizer"]
    dropouts = [getattr(adapter, f, None) for f in ("dropout", "lora_dropout", "hira_dropout")]
    alphas = [getattr(adapter, f, None) for f in ("alpha", "lora_alpha")]
    if hasattr(adapter, "alpha"):
        alphas.append(rank_of(adapter))  # SMoA's default: alpha = r
    return {
        "task": data.task.name,
        "strategy": strategy_name(adapter, module.frozen),
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

"""The name of a strategy, and the sizes in the name of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import PeftConfig

# Settings of ``peft.LoraConfig`` that are methods with separate names.
NAMED_INITIALISATIONS = ("pissa", "olora", "mica", "loftq")
NAMED_VARIANTS = {
    "use_qalora": "qalora",
    "alora_invocation_tokens": "alora",
    "velora_config": "velora",
    "use_bdlora": "bdlora",
    "arrow_config": "arrow",
}


def method_name(config: PeftConfig) -> str:
    """Return peft's name of a method, such as ``LORA``."""
    return str(getattr(config.peft_type, "value", config.peft_type))


# Settings of our own methods that the authors' code has otherwise -> their part of the name.
OWN_VARIANTS = {
    "alpha_over_rank": "alpha_over_rank",
    "after_dropout": "after_dropout",
    "initial_std": "std{:g}",
    "rounding": "{}",
}


def strategy_name(adapter: PeftConfig | None, frozen: bool, prompt: PeftConfig | None = None) -> str:
    """Return the name of a strategy: ``frozen``, ``full``, ``dora``, ``pissa``, ``smoa_spectral_blocks``, ...

    The name of a prompt method that is trained with the adapter is added, as in ``lora+prompt_tuning``.

    A setting that changes the method is part of the name. If that method has a separate name (DoRA, rsLoRA, PiSSA,
    ...), it replaces the name of the class.

    >>> from peft import LoraConfig, PrefixTuningConfig
    >>> strategy_name(PrefixTuningConfig(), False), strategy_name(LoraConfig(init_lora_weights="pissa"), False)
    ('prefix_tuning', 'pissa')
    """
    if prompt is not None:
        return f"{strategy_name(adapter, frozen)}+{strategy_name(prompt, frozen)}"
    if adapter is None:
        return "frozen" if frozen else "full"
    settings: Any = adapter
    name = method = method_name(adapter).lower()
    if getattr(settings, "use_dora", False):
        name = "dora"
    if getattr(settings, "use_rslora", False):
        name = f"rs{name}"
    for setting, variant in NAMED_VARIANTS.items():
        if getattr(settings, setting, None):
            name = variant if name == method else f"{name}_{variant}"
    initialisation = getattr(settings, "init_lora_weights", None)
    if isinstance(initialisation, str):
        short = initialisation.lower().split("_niter_")[0]
        name = short if name == "lora" and short in NAMED_INITIALISATIONS else f"{name}_{short}"
    for setting in ("partition", "structure", "type", "placement"):  # our own families
        if hasattr(settings, setting) and (setting != "placement" or getattr(settings, "slot", None) != "update"):
            name = f"{name}_{getattr(settings, setting)}"
    if getattr(settings, "modulation", "weight") != "weight":
        name = f"{name}_{settings.modulation}_modulation"
    for setting, variant in OWN_VARIANTS.items():
        value = getattr(settings, setting, None)
        if value not in (None, False, "floor"):
            name = f"{name}_{variant.format(value)}"
    return name


# Settings besides rank and K that decide the size of a method -> their word in the name of a run.
SIZES = {
    "gralora_k": "blocks",
    "k1": "columns",
    "bottleneck_size": "size",
    "block_size": "block",
    "oft_block_size": "block",
    "boft_block_size": "block",
    "n_frequency": "frequencies",
    "num_virtual_tokens": "tokens",
    "theta_d_length": "theta",
    "num_vectors": "vectors",
    "u": "u",
}


def size_names(adapter: PeftConfig | None) -> list[str]:
    """Return the sizes of a strategy for the name of its run; only those that the strategy has.

    >>> from peft import IA3Config, LoraConfig, PrefixTuningConfig
    >>> size_names(LoraConfig(r=8)), size_names(PrefixTuningConfig(num_virtual_tokens=20)), size_names(IA3Config())
    (['r8'], ['tokens20'], [])
    """
    sizes = [f"r{rank_of(adapter)}"] if rank_of(adapter) else []
    if getattr(adapter, "structure", None) == "ldr":
        sizes.append(f"displacement{adapter.displacement_rank}")  # type: ignore[union-attr]
    if hasattr(adapter, "num_subspaces"):
        sizes.append(f"K{num_subspaces_of(adapter)}")
    values = {
        word: getattr(adapter, setting, None) for setting, word in SIZES.items() if getattr(adapter, setting, None)
    }
    return sizes + [f"{word}{value}" for word, value in values.items() if isinstance(value, int)]


def rank_of(adapter: PeftConfig | None) -> int:
    """Return the rank setting: 0 for a strategy without a rank, the final mean rank for AdaLoRA."""
    rank = getattr(adapter, "target_r", getattr(adapter, "r", 0))
    return rank if isinstance(rank, int) else 0


def num_subspaces_of(adapter: PeftConfig | None) -> int:
    """Return the number of subspaces, 1 for a strategy without this setting."""
    return getattr(adapter, "num_subspaces", 1)

"""Our configs in the forms of peft's test cases."""

from __future__ import annotations

from typing import Any

from smoa_lightning.adapters import BottleneckConfig, HyperAdaptConfig, MoraConfig, SMoAConfig, SurmConfig

Settings = dict[str, Any]
Method = tuple[type, Settings]

# The layers of peft's own models are small: 10 x 20 and 20 x 2 in its MLP.
UPDATES: dict[str, Method] = {
    "SMoA none": (SMoAConfig, {"r": 2, "partition": "none", "num_subspaces": 1}),
    "SMoA blocks": (SMoAConfig, {"r": 2}),
    "SMoA energy": (SMoAConfig, {"r": 2, "partition": "spectral_energy"}),
    "SMoA random": (SMoAConfig, {"r": 2, "partition": "random_blocks", "modulation": "random"}),
    "SMoA LoRA": (SMoAConfig, {"r": 2, "partition": "none", "num_subspaces": 1, "modulation": "none"}),
    "SMoA grid": (SMoAConfig, {"r": 2, "partition": "grid_blocks"}),
    "MoRA sharing": (MoraConfig, {"r": 1}),
    "MoRA rotation": (MoraConfig, {"r": 1, "type": "rotation"}),
    "HyperAdapt": (HyperAdaptConfig, {}),
    "SURM circulant": (SurmConfig, {}),
    "SURM toeplitz": (SurmConfig, {"structure": "toeplitz"}),
    "SURM hadamard": (SurmConfig, {"structure": "toeplitz_hadamard"}),
    "SURM kronecker": (SurmConfig, {"structure": "kronecker"}),
    "SURM ldr": (SurmConfig, {"structure": "ldr", "block_size": 2}),
}
SLOTS: dict[str, Method] = {
    "SURM slot": (SurmConfig, {"slot": "adapter"}),
    "Bottleneck": (BottleneckConfig, {"bottleneck_size": 2}),
}
_PLACES: dict[str, list[Settings]] = {
    "MLP": [
        {"target_modules": "lin0"},
        {"target_modules": ["lin0"]},
        {"target_modules": ["lin1"]},
        {"target_modules": ["lin0", "lin1"]},
        {"target_modules": ["lin0"], "modules_to_save": ["lin1"]},
    ],
    "EmbConv1D": [{"target_modules": ["lin0"]}],
    "Conv2d": [{"target_modules": ["lin0"]}],
}
_NARROW = [{"target_modules": ["conv1d"]}]  # 5 x 1, which cannot be divided
_EMBEDDING, _CONVOLUTION = [{"target_modules": ["emb"]}], [{"target_modules": ["conv2d"]}]
# Name of a method -> further places that it can adapt.
_MORE_PLACES: dict[str, dict[str, list[Settings]]] = {
    "HyperAdapt": {"EmbConv1D": _NARROW},
    "MoRA sharing": {"EmbConv1D": _EMBEDDING, "Conv2d": _CONVOLUTION},
    "MoRA rotation": {"Conv2d": _CONVOLUTION},
    "SURM circulant": {"EmbConv1D": _NARROW + _EMBEDDING, "Conv2d": _CONVOLUTION},
    "SURM kronecker": {"EmbConv1D": _NARROW + _EMBEDDING, "Conv2d": _CONVOLUTION},
    "SURM toeplitz": {"Conv2d": _CONVOLUTION},
}


def custom_cases() -> list[tuple[str, str, type, Settings]]:
    """Return (name, model, config class, settings) for peft's own small models."""
    cases = []
    for name, (config, settings) in (UPDATES | SLOTS).items():
        more = _MORE_PLACES.get(name, {})
        for model, places in _PLACES.items():
            for index, place in enumerate(places + more.get(model, [])):
                cases.append((f"{model} {index} {name}", model, config, {**settings, **place}))
    return cases


def pairs() -> list[tuple[str, str, type, Settings, Settings]]:
    """Return (name, method, config class, first settings, second settings) of two active adapters."""
    found = []
    for name, (config, settings) in UPDATES.items():
        for second in ("lin0", "lin1"):
            first, other = (
                {**settings, "target_modules": [layer], "init_weights": False} for layer in ("lin0", second)
            )
            found.append((f"{name} and {second}", name.split()[0].lower(), config, first, other))
    return found


def of_transformers(task_type: str) -> list[Method]:
    """Return (config class, settings) for models of transformers."""
    return [(config, {"task_type": task_type, **settings}) for config, settings in (UPDATES | SLOTS).values()]

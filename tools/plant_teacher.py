"""Plant an update of known structure and rank in a model: a teacher whose truth is known, for calibration.

``python -m tools.plant_teacher OUTPUT --kind additive --rank 2 --size 0.8`` writes a folder of transformers with W + D
in every layer that LoRA adapts by default:

* ``additive``: D = B A with random normal B (d_out, r) and A (r, d_in), LoRA's structure;
* ``modulated``: D = (B A) o W, HiRA's structure;
* ``blocks``: (B_k A_k) o W in two blocks along W's spectrum, SMoA's structure;
* ``circulant``: random circulant blocks, SURM's structure; it has no rank.

D is scaled to ||D||_F = size ||W||_F in each layer. Students are distilled with ``model.distillation.teacher: OUTPUT``.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from smoa_lightning.adapters import SMoAConfig, SurmConfig, attach, layer_update
from smoa_lightning.adapters.inspect import target_layers
from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.common.errors import UserError
from smoa_lightning.embedded import backbone_folder

KINDS = ("additive", "modulated", "blocks", "circulant")


@torch.no_grad()
def plant(model: Any, kind: str, rank: int, size: float, seed: int = 0) -> dict[str, Tensor]:
    """Add D to the weights of a model in place, and return D of each layer, (d_out, d_in).

    Args:
        model: A causal language model with ``nn.Linear`` layers, float32.
        kind: One of ``KINDS``.
        rank: r; not used by ``circulant``.
        size: ||D||_F / ||W||_F.
        seed: Seed of the random numbers.

    Raises:
        UserError: An unknown kind, or a rank or a size that is not positive.
    """
    if kind not in KINDS:
        raise UserError(f"plant_teacher: --kind is {kind!r}, but must be one of {', '.join(KINDS)}")
    if rank < 1 or size <= 0:
        raise UserError(f"plant_teacher: --rank is {rank} and --size is {size:g}, but both must be positive")
    generator = torch.Generator().manual_seed(seed)
    layers: dict[str, Any] = target_layers(model, LoraConfig())
    if kind in ("additive", "modulated"):
        updates = {name: _product(layer.weight, rank, generator) for name, layer in layers.items()}
        if kind == "modulated":
            updates = {name: update * layers[name].weight for name, update in updates.items()}
    else:
        config: PeftConfig = SurmConfig(structure="circulant") if kind == "circulant" else SMoAConfig(r=rank)
        updates = _of_adapter(model, config, list(layers), generator)
    for name, layer in layers.items():
        updates[name] *= size * layer.weight.norm() / updates[name].norm()
        layer.weight += updates[name]
    return updates


def _product(weight: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    left, right = (torch.randn(side, rank, generator=generator) for side in weight.shape)
    return left @ right.t()


def _of_adapter(model: Any, config: PeftConfig, names: list[str], generator: torch.Generator) -> dict[str, Tensor]:
    """Return the updates of a method with random normal parameters."""
    adapted = attach(copy.deepcopy(model), config, seed=0)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return {name: layer_update(adapted.get_base_model().get_submodule(name)) for name in names}


def write(output: Path, backbone: Path, kind: str, rank: int, size: float, seed: int) -> None:
    """Write the planted model, its tokenizer and ``plant.json``.

    Raises:
        UserError: The folder exists, or a setting is refused.
    """
    if output.exists():
        raise UserError(f"plant_teacher: {output} exists: name a new folder")
    model = AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.float32, local_files_only=True)
    updates = plant(model, kind, rank, size, seed)
    with replacing(output) as temporary:
        model.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(backbone, local_files_only=True).save_pretrained(temporary)
        facts = {"kind": kind, "rank": rank, "size": size, "seed": seed, "layers": list(updates)}
        (temporary / "plant.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and write the teacher."""
    parser = argparse.ArgumentParser(prog="python -m tools.plant_teacher", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("output", type=Path, help="the new folder")
    parser.add_argument("--kind", choices=KINDS, default="additive", help="structure of the update")
    parser.add_argument("--rank", type=int, default=2, help="rank of the factors (default: 2)")
    parser.add_argument("--size", type=float, default=0.8, help="norm of D divided by that of W (default: 0.8)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers (default: 0)")
    parser.add_argument(
        "--backbone", type=Path, default=backbone_folder(), help="folder of the model (default: embedded)"
    )
    options = parser.parse_args(arguments)
    try:
        write(options.output, options.backbone, options.kind, options.rank, options.size, options.seed)
    except UserError as error:
        parser.error(str(error))
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()

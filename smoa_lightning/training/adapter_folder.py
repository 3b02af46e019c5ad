"""Adapters as folders: write one with its model card, and load one back onto its backbone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftModel
from peft.utils.warning import PeftWarning
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from smoa_lightning.adapters.attach import quiet_peft  # importing adapters lets peft load our methods
from smoa_lightning.backbones.backbone import (
    BackboneConfig,
    Location,
    load_model,
    load_tokenizer,
    locate,
    provenance,
    size_name,
)
from smoa_lightning.common.checksums import is_intact, sealed, sha256
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import ADAPTER_FACTS
from smoa_lightning.version import __version__

CARD = "README.md"

if TYPE_CHECKING:
    from smoa_lightning.training.module import FineTuneModule


def save_adapter(module: FineTuneModule, folder: Path, facts: dict[str, Any]) -> None:
    """Write the adapter of ``module`` as a peft folder with a model card and the facts needed to load it.

    Under full fine-tuning the folder holds the whole model in transformers' layout.

    Args:
        module: A module whose model is loaded.
        folder: Where to write; it must not exist.
        facts: What the card should tell: task, source of the data, step, score on the selection rows.
    """
    network = module.network
    with _quiet_peft():
        network.save_pretrained(folder)  # type: ignore[operator]
    kept: dict[str, Any] = {
        "version": __version__,
        "backbone": dataclasses.asdict(module.backbone_config),
        "location": provenance(module.location, network),
        "adapter_seed": module.adapter_seed,
        **facts,
    }
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CARD)  # a card may be edited
    kept["sha256"] = {file.relative_to(folder).as_posix(): sha256(file) for file in files}
    (folder / ADAPTER_FACTS).write_text(json.dumps(sealed(kept), indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(module, kept), encoding="utf-8")


@contextlib.contextmanager
def _quiet_peft() -> Iterator[None]:
    """Leave out three warnings of peft 0.21 that say nothing to a user."""
    with quiet_peft():
        # it takes a layer whose rank AdaLoRA has cut to 0 for a shard that was not gathered
        warnings.filterwarnings("ignore", message=".*have invalid shape.*", category=PeftWarning)
        # it compares AdaLoRA's rank pattern, one entry a tensor, with LoRA's, one entry a module
        warnings.filterwarnings("ignore", message=".*rank_pattern keys did not match.*", category=RuntimeWarning)
        yield


def _card(module: FineTuneModule, facts: dict[str, Any]) -> str:
    base = size_name(module.location)
    library = "peft" if isinstance(module.network, PeftModel) else "transformers"
    score = facts["selection"]["score"]
    told = "not measured" if score is None else f"{score:.4f}"
    return f"""---
library_name: {library}
base_model: {facts["location"]["name"]}
tags: [smoa-lightning, peft]
---

# {facts["task"]} on {base}

Trained with smoa_lightning {facts["version"]}: the {facts["which"]} adapter of the run, after {facts["step"]} steps.

* Backbone: `{facts["location"]["name"]}` (source: {facts["location"]["source"]})
* Data: task `{facts["task"]}`, source: **{facts["data_source"]}**
* {facts["selection"]["metric"]} on the selection rows (best so far): {told}

```python
from smoa_lightning import load_adapter  # importing it registers the methods that peft itself lacks

model, tokenizer = load_adapter("path/to/this/folder")
```

In a process that has not imported `smoa_lightning`, `peft` raises a KeyError for its own methods' types.
"""


def adapter_folder(run_or_folder: str | Path) -> Path:
    """Return the folder of a run's best adapter, or the adapter folder itself.

    Raises:
        UserError: The folder holds no adapter.
    """
    folder = Path(run_or_folder)
    if (folder / "adapter" / "best").is_dir():
        folder = folder / "adapter" / "best"
    if not (folder / ADAPTER_FACTS).is_file():
        raise UserError(f"{folder} is neither a run with an adapter nor an adapter folder: it has no {ADAPTER_FACTS}")
    return folder


def read_adapter_facts(folder: Path) -> dict[str, Any]:
    """Return the facts about an adapter folder, after a comparison of its files with their checksums.

    A folder of an earlier version has no checksums: its files are not compared.

    Raises:
        UserError: A file is missing, damaged or changed.
    """
    file = folder / ADAPTER_FACTS
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        intact = is_intact(facts) and {"backbone", "location"} <= facts.keys()
    except (OSError, ValueError, AttributeError, TypeError):
        intact = False
    if not intact:
        raise UserError(f"{file} is damaged or was changed: its checksum is wrong; save or copy the adapter again")
    for name, expected in facts.get("sha256", {}).items():
        part = folder / name
        if not part.is_file():
            raise UserError(f"{part} is missing: save or copy the adapter again")
        if sha256(part) != expected:
            raise UserError(f"{part} is damaged or was changed: its checksum differs from the one in {ADAPTER_FACTS}")
    return facts


def saved_backbone(folder: Path) -> tuple[BackboneConfig, Location]:
    """Return the backbone that the adapter in a folder was trained on, and where it is read from."""
    facts = read_adapter_facts(folder)
    config = BackboneConfig(**facts["backbone"])
    return config, _location(config, facts["location"])


def load_adapter(
    run_or_folder: str | Path, backbone: PreTrainedModel | str | None = None
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Load a trained adapter and its tokenizer, in evaluation mode.

    Args:
        run_or_folder: A run folder (its best adapter is taken) or an adapter folder.
        backbone: A loaded model or a folder to load it from; by default the one that the adapter was trained on.
            A base with other weights is refused by strategies that save fingerprints.

    Returns:
        The model with the adapter attached, and the tokenizer.

    Raises:
        UserError: The folder holds no adapter.
    """
    folder = adapter_folder(run_or_folder)
    facts = read_adapter_facts(folder)
    config = BackboneConfig(**facts["backbone"])
    if backbone is None:
        location = _location(config, facts["location"])
    else:
        location = Location("local", backbone if isinstance(backbone, str) else str(backbone.name_or_path))
    if not (folder / "adapter_config.json").is_file():
        return AutoModelForCausalLM.from_pretrained(folder).eval(), load_tokenizer(location)
    base = backbone if isinstance(backbone, PreTrainedModel) else load_model(config, location)
    with _quiet_peft():
        model = PeftModel.from_pretrained(base, str(folder))
    return model.eval(), load_tokenizer(location)


def _location(config: BackboneConfig, kept: dict[str, Any]) -> Location:
    """Return the source that was decided in training: ``auto`` must not be decided a second time."""
    decided = dataclasses.replace(config, source=kept["source"])
    return locate(dataclasses.replace(decided, revision=kept.get("commit") or config.revision))

"""Adapter folders: write an adapter with its model card, and load it with its backbone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pickle
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.utils.warning import PeftWarning
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from smoa_lightning.adapters.attach import quiet_peft  # importing adapters lets peft load our methods
from smoa_lightning.adapters.combine import WEIGHTS, is_pair, load_both
from smoa_lightning.adapters.ignored_names import refuse_ignored_names
from smoa_lightning.adapters.method_names import strategy_name
from smoa_lightning.backbones.backbone import (
    BackboneConfig,
    Location,
    complete_model,
    load_model,
    locate,
    provenance,
    size_name,
)
from smoa_lightning.backbones.fused import KEY_FOR_PEFT, split_fused
from smoa_lightning.backbones.head_start import keep_in_float32
from smoa_lightning.backbones.heads import Head, follow_padding, head_of, in_new_head, mark_head, processor_name
from smoa_lightning.backbones.processor import Processor, load_processor
from smoa_lightning.common.checksums import is_intact, sealed, sha256
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.common.paths import local_path
from smoa_lightning.configuration.class_names import check_adapter_files
from smoa_lightning.records.adapter_places import adapter_in
from smoa_lightning.records.record import ADAPTER_FACTS
from smoa_lightning.training.other_methods import register_method
from smoa_lightning.training.trained_on import check_trained_on
from smoa_lightning.version import __version__

CARD = "README.md"

if TYPE_CHECKING:
    from torch import Tensor

    from smoa_lightning.training.module import FineTuneModule


def save_adapter(
    module: FineTuneModule,
    folder: Path,
    facts: dict[str, Any],
    weights: dict[str, Tensor] | None = None,
    same: Path | None = None,
) -> None:
    """Write the adapter of ``module`` as a peft folder, with a model card and the facts for loading.

    After full fine-tuning, the folder has the whole model in transformers' layout.

    Args:
        module: A module whose model is loaded.
        folder: The new folder.
        facts: Facts for the card: task, source of the data, step, score on the selection rows.
        weights: The weights of the model, if they are divided over processes.
        same: A folder that this function has written from the same state: its weights are copied.
    """
    network = module.network
    if same is not None:
        shutil.copytree(same, folder, ignore=shutil.ignore_patterns(ADAPTER_FACTS, CARD))
    else:
        with _quiet_peft():
            network.save_pretrained(folder, state_dict=weights)  # type: ignore[operator]
        if module.backbone_config.split_fused:
            _warn_peft_alone(folder)
    path = module.location.name if module.location.source == "local" else module.backbone_config.path
    facts = {
        "version": __version__,
        "backbone": dataclasses.asdict(module.backbone_config) | {"path": path},
        "location": provenance(module.location, network),
        "adapter_seed": module.adapter_seed,
        "strategy": strategy_name(module.adapter_config, module.frozen_backbone, module.prompt_config),
        **facts,
    }
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CARD)  # a card may be edited
    facts["sha256"] = {file.relative_to(folder).as_posix(): sha256(file) for file in files}
    (folder / ADAPTER_FACTS).write_text(json.dumps(sealed(facts), indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(module, facts), encoding="utf-8")


def _warn_peft_alone(folder: Path) -> None:
    """Let peft warn if it loads an adapter of split layers without this package."""
    for file in folder.rglob("adapter_config.json"):
        config = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(config | {KEY_FOR_PEFT: True}, indent=2, sort_keys=True), encoding="utf-8")


@contextlib.contextmanager
def _quiet_peft() -> Iterator[None]:
    """Hide three warnings of peft 0.21 that do not help a user."""
    with quiet_peft():
        # peft mistakes a layer that AdaLoRA has cut to rank 0 for a shard of a tensor
        warnings.filterwarnings("ignore", message=".*have invalid shape.*", category=PeftWarning)
        # peft compares AdaLoRA's rank pattern (one entry a tensor) with LoRA's (one entry a module)
        warnings.filterwarnings("ignore", message=".*rank_pattern keys did not match.*", category=RuntimeWarning)
        yield


def _card(module: FineTuneModule, facts: dict[str, Any]) -> str:
    base, reads = size_name(module.location), processor_name(module.location.head)
    library = "peft" if isinstance(module.network, PeftModel) else "transformers"
    score = facts["selection"]["score"]
    shown_score = "not measured" if score is None else f"{score:.4f}"
    return f"""---
library_name: {library}
base_model: {facts["location"]["name"]}
tags: [smoa-lightning, peft]
---

# {facts["task"]} on {base}

Trained with smoa_lightning {facts["version"]}: the {facts["which"]} adapter of the run, after {facts["step"]} steps.

* Backbone: `{facts["location"]["name"]}` (source: {facts["location"]["source"]})
* Data: task `{facts["task"]}`, source: **{facts["data_source"]}**
* {facts["selection"]["metric"]} on the selection rows (best so far): {shown_score}

```python
from smoa_lightning import load_adapter  # the import registers the methods that peft does not have

model, {reads} = load_adapter("path/to/this/folder")
```

`peft` raises a KeyError for methods of `smoa_lightning` in a process that has not imported `smoa_lightning`.
"""


def adapter_folder(run_or_folder: str | Path) -> Path:
    """Return the folder of a run's best adapter, or the adapter folder itself.

    Raises:
        UserError: The folder holds no adapter, or one of a method that peft does not know.
    """
    folder = adapter_in(local_path(run_or_folder))
    for part in (folder, folder / WEIGHTS) if is_pair(folder) else (folder,):
        check_adapter_files(part)
        register_method(part)
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


def saved_backbone(folder: Path, moved: str | None = None, weights: bool = True) -> tuple[BackboneConfig, Location]:
    """Return the settings and the location of the backbone that an adapter was trained on.

    Args:
        folder: An adapter folder.
        moved: The folder of the backbone, if it has moved since training.
        weights: Whether the weights of the backbone matter.

    Raises:
        UserError: The backbone differs from the one in training.
    """
    facts = read_adapter_facts(folder)
    config = BackboneConfig(**facts["backbone"])
    if moved is None:
        location = _location(config, facts["location"])
    else:
        head = head_of(facts["location"].get("head"))
        location = locate(dataclasses.replace(config, source="local", path=moved), head)
    check_trained_on(f"the adapter in {folder}", facts["location"], provenance(location), weights)
    return config, location


def load_adapter(
    run_or_folder: str | Path, backbone: PreTrainedModel | str | None = None
) -> tuple[PreTrainedModel | PeftModel, Processor]:
    """Load a trained adapter and its tokenizer (for images its image processor), in evaluation mode.

    Args:
        run_or_folder: A run folder (its best adapter is used) or an adapter folder.
        backbone: A loaded model or the folder of a model; by default the backbone that the adapter was trained on.
            Fused layers of a loaded model are split if they were in training (``model.backbone.split_fused``). The
            flag ``--model.backbone.path`` of the commands names a folder.
            The files of a folder must be those in training. A loaded model is not compared with them.
            Strategies that save fingerprints refuse a backbone with different weights.
            A new head of a loaded model becomes float32, as it was trained, and its config gets the names of the
            classes.

    Returns:
        The model with the adapter attached, and the tokenizer or the image processor.

    Raises:
        UserError: The folder holds no adapter, the backbone differs from the one in training, or a loaded model lacks
            the head.
    """
    folder = adapter_folder(run_or_folder)
    full = not (folder / "adapter_config.json").is_file()
    if isinstance(backbone, PreTrainedModel):
        facts = read_adapter_facts(folder)
        if facts["backbone"].get("split_fused"):
            split_fused(backbone, str(backbone.name_or_path))
        head = head_of(facts["location"].get("head"))
        if head.texts and not isinstance(backbone, head.auto_class):
            raise UserError(
                f"the adapter in {folder} has a head that starts from texts (model.head_init), which a "
                f"{type(backbone).__name__} computes in another way: name the folder of the backbone, or leave it out"
            )
        if head.is_new:
            _take_head(backbone, head, folder)
        name = str(backbone.name_or_path)
        location = Location("local" if Path(name).is_dir() else "hub", name, head=head)
    else:
        config, location = saved_backbone(folder, backbone, weights=not full)
    if full:
        with reading(folder):
            whole = complete_model(Location("local", str(folder), head=location.head))
            _read_head(whole, folder)
        return whole.eval(), load_processor(location)
    processor = load_processor(location)
    base = backbone if isinstance(backbone, PreTrainedModel) else load_model(config, location)
    keep_in_float32(base)
    follow_padding(base, location.head, getattr(processor, "pad_token_id", None))
    with _quiet_peft(), reading(folder):
        model = load_both(base, folder) if is_pair(folder) else PeftModel.from_pretrained(base, str(folder))
    base.config.update(location.head.settings())  # a loaded model may have other names of the outputs
    if not is_pair(folder):
        refuse_ignored_names(model)
    return model.eval(), processor


def trains_head_only(facts: Mapping[str, Any]) -> bool:
    """Whether a run has trained a new head alone; its folder then has the whole model, as after full fine-tuning."""
    return bool(facts.get("strategy") == strategy_name(None, frozen=True))


@torch.no_grad()
def _read_head(model: PreTrainedModel, folder: Path) -> None:
    """Read a new head in float32, as it was trained: transformers reads all weights in one number format."""
    if not keep_in_float32(model) or model.dtype == torch.float32:
        return
    head = {name: p for name, p in model.named_parameters() if in_new_head(model, name)}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            for name in head.keys() & set(weights.keys()):
                head[name].copy_(weights.get_tensor(name))


def _take_head(model: PreTrainedModel, head: Head, folder: Path) -> None:
    """Mark the new head of a loaded model.

    Raises:
        UserError: The model has no such head.
    """
    if not head.fits(model):
        raise UserError(
            f"the adapter in {folder} has a head for {head.words()}, but a {type(model).__name__} has none: load the "
            f"model with {head.auto_name}, or name its folder"
        )
    mark_head(model, head)


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn an exception about a damaged or foreign file into one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            only = re.escape(f"Unexpected keyword arguments {[KEY_FOR_PEFT]}")  # which is for peft alone
            warnings.filterwarnings("ignore", message=only, category=UserWarning)
            yield
    except (SafetensorError, pickle.UnpicklingError, OSError, ValueError, LookupError, TypeError, AttributeError,
            RuntimeError) as error:  # fmt: skip
        reason = one_line(error, 300)
        raise UserError(
            f"the adapter in {folder} cannot be read, a file is missing, damaged or of another model: {reason}"
        ) from error


def _location(config: BackboneConfig, saved: dict[str, Any]) -> Location:
    """Return the location that ``auto`` meant in training; older folders have an absolute path in ``saved`` only."""
    decided, head = dataclasses.replace(config, source=saved["source"]), head_of(saved.get("head"))
    if decided.source == "local":
        paths = [path for path in (saved["name"], config.path) if path and (Path(path) / "config.json").is_file()]
        if not paths:
            raise UserError(
                f"the backbone of the adapter is no longer in {saved['name']!r}: name its folder with "
                "--model.backbone.path FOLDER, or in Python with load_adapter(..., backbone=FOLDER)"
            )
        return locate(dataclasses.replace(decided, path=paths[0]), head)
    return locate(dataclasses.replace(decided, path=None, revision=saved.get("commit") or config.revision), head)

"""The teacher of a distilled run: found and checked before any weight is read, loaded when training begins."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import PeftConfig
from torch import nn
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from smoa_lightning.adapters.virtual_tokens import limits_with
from smoa_lightning.backbones.backbone import (
    BackboneConfig,
    Location,
    limits,
    load_model,
    load_skeleton,
    locate,
    provenance,
    reading_errors,
)
from smoa_lightning.backbones.heads import Head, follow_padding
from smoa_lightning.backbones.limits import Limits
from smoa_lightning.backbones.processor import load_processor
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.paths import check_teacher_name, local_path, near_place
from smoa_lightning.objectives.distillation import DistillationConfig
from smoa_lightning.objectives.objective import check_distillation
from smoa_lightning.records.record import ADAPTER_FACTS
from smoa_lightning.training.adapter_folder import (
    adapter_folder,
    load_adapter,
    read_adapter_facts,
    reading,
    saved_backbone,
)

if TYPE_CHECKING:
    from smoa_lightning.training.module import FineTuneModule

SETTING = "model.distillation.teacher"
PARTS = ("model", "normalizer", "pre_tokenizer")  # of a fast tokenizer, which decide its tokens
logger = logging.getLogger(__name__)


class Teacher:
    """A frozen model, with its adapter on if it has one. It is no part of the trained module.

    Args:
        settings: The settings of the distillation.
        backbone: The settings of the student's backbone. A teacher without an adapter gets its number format.
        head: The head of the student, which the teacher needs too.

    Attributes:
        network: The loaded model; None before training and after it.

    Raises:
        UserError: There is no such teacher, or it has a different head.
    """

    def __init__(self, settings: DistillationConfig, backbone: BackboneConfig, head: Head) -> None:
        self.settings, self.head = settings, head
        self.network: nn.Module | None = None
        self.adapter: Path | None = None
        check_teacher_name(settings.teacher)
        folder = local_path(settings.teacher)
        try:
            if folder.exists() and ((folder / ADAPTER_FACTS).is_file() or not (folder / "config.json").is_file()):
                self.adapter = adapter_folder(folder)
                self.config, self.location = saved_backbone(self.adapter, weights=not self.is_whole)
            else:
                self.config = _settings_of(settings.teacher, backbone)
                self.location = locate(self.config, head)
                _check_head_in_files(self.location)
        except UserError as error:
            raise UserError(f"{SETTING}: {error}") from error
        if not self.location.head.same_outputs(head):
            raise UserError(
                f"{SETTING}: {settings.teacher!r} has the head {self.location.head.words()}, but the run has "
                f"{head.words()}: name a teacher that was trained on the same task"
            )

    @property
    def is_whole(self) -> bool:
        """Whether the adapter folder holds a whole model, after full fine-tuning."""
        return self.adapter is not None and not (self.adapter / "adapter_config.json").is_file()

    @property
    def limits(self) -> Limits:
        """What the teacher can be fed, with its adapter."""
        return limits_with(self.adapter_config, limits(self.location))

    @property
    def adapter_config(self) -> PeftConfig | None:
        """The configuration of its adapter, of a pair that of the prompt; None without an adapter.

        Raises:
            UserError: Its file cannot be read.
        """
        if self.adapter is None or self.is_whole:
            return None
        with reading(self.adapter):
            config: PeftConfig = PeftConfig.from_pretrained(str(self.adapter))
            return config

    def skeleton(self) -> PreTrainedModel:
        """Build the teacher on the meta device, without its adapter: shapes, without weights."""
        return load_skeleton(self.config, self.location)

    def shares_weights_of(self, student: FineTuneModule) -> bool:
        """Return whether the teacher has an adapter on the same frozen weights as its student."""
        config = student.backbone_config
        frozen = student.adapter_config is not None and config.quantization is None
        own, theirs = ((c.dtype, c.split_fused) for c in (self.config, config))
        same = (self.location, own) == (student.location, theirs)
        return self.adapter is not None and not self.is_whole and frozen and same

    def facts(self) -> dict[str, Any]:
        """Return the origin of the teacher for records: its backbone, and the digests of the files of its adapter."""
        found: dict[str, Any] = {"name": self.settings.teacher}
        if self.adapter is not None:
            found["adapter"] = read_adapter_facts(self.adapter).get("sha256", {})
        return found if self.is_whole else found | {"backbone": provenance(self.location)}

    def check(self, processor: Any, student: Limits, max_length: int) -> None:
        """Compare the teacher with the student.

        Args:
            processor: The tokenizer of the student, or its image processor.
            student: What the student can be fed.
            max_length: The most tokens of a row.

        Raises:
            UserError: The tokenizers or image processors differ, a vocabulary is too short, or a row does not fit into
                the teacher.
        """
        name, own = self.settings.teacher, self.limits
        images, theirs = self.head.reads_images, cast(Any, load_processor(self.location))
        if difference := (image_difference if images else tokenizer_difference)(processor, theirs):
            kind = "image processor" if images else "tokenizer"
            raise UserError(
                f"{SETTING}: the {kind} of {name!r} differs from that of the backbone ({difference}), and a teacher "
                f"needs the same {kind}: name a teacher of the same family of models"
            )
        if images:
            return
        sizes = [size for size in (student.vocabulary, own.vocabulary) if size is not None]
        needed = 1 + max(processor.get_vocab().values())
        if not self.head.is_new and len(set(sizes)) > 1 and min(sizes) < needed:
            raise UserError(
                f"{SETTING}: the vocabulary of {name!r} has {own.vocabulary} rows and that of the backbone "
                f"{student.vocabulary}, but the tokenizer has {needed} tokens: name a teacher with the same vocabulary"
            )
        if own.context is not None and max_length > own.context:
            raise UserError(
                f"{SETTING}: a row may have {max_length} tokens (data.max_length), but the context of {name!r} is "
                f"{own.describe()}: set data.max_length to at most {own.context}"
            )

    def load(self, student: nn.Module, device: torch.device, pad_id: int | None) -> nn.Module:
        """Load the teacher in evaluation mode, without gradients; the random state does not change.

        Frozen weights that are equal to those of the student share their memory.

        Args:
            student: The student with its adapter, on its device.
            device: The device of the student.
            pad_id: The pad token.

        Raises:
            UserError: The teacher cannot be read, or its files lack the head.
        """
        # a pass that scores may load the teacher, and training cannot use weights that were made in inference mode
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            network: Any
            if self.adapter is not None:
                network, _ = load_adapter(self.adapter)
            else:
                network = load_model(self.config, self.location)
                if missing := getattr(network, "missing_head", ()):
                    raise UserError(
                        f"{SETTING}: the files of {self.settings.teacher!r} lack {missing[0]}: train it first"
                    )
                follow_padding(network, self.head, pad_id)
        loaded: nn.Module = network.requires_grad_(False).eval().to(device)
        self.network = loaded
        shared = share_weights(network, student)
        size = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
        logger.info(
            "teacher: %s, %s parameters, %.1f MB%s",
            self.settings.teacher,
            f"{sum(parameter.numel() for parameter in network.parameters()):,}",
            size / 1e6,
            f", {shared / 1e6:.1f} MB of them shared with the backbone" if shared else "",
        )
        return loaded


def open_teacher(module: FineTuneModule, max_length: int) -> Teacher | None:
    """Find and check the teacher of a run; ``None`` for a run without one. No weight is read.

    Args:
        module: The model of the run, with its objective.
        max_length: The most tokens of a row.

    Raises:
        UserError: There is no such teacher, it does not fit the run, or the run trains nothing.
    """
    settings = module.distillation
    if settings is None:
        return None
    if module.frozen:
        raise UserError(
            "model.frozen is true, so nothing would learn from the teacher: set model.distillation to null, or train "
            "an adapter"
        )
    check_distillation(module.objective, settings)
    teacher = Teacher(settings, module.backbone_config, module.objective.head)
    processor, own = module.processor, module.limits
    try:
        teacher.check(processor, own, max_length)
    except UserError as error:
        raise UserError(str(error) if SETTING in str(error) else f"{SETTING}: {error}") from error
    return teacher


def image_difference(one: Any, other: Any) -> str:
    """Return in which setting two image processors differ; empty if in none."""
    ours, theirs = map(_pixel_settings, (one, other))
    names = [name for name in [*ours, *(theirs.keys() - ours.keys())] if ours.get(name) != theirs.get(name)]
    return f"{names[0]} is {theirs.get(names[0])} there and {ours.get(names[0])} here" if names else ""


def _pixel_settings(processor: Any) -> dict[str, Any]:
    """Return the settings of an image processor that change pixels; one that is absent is one that is off."""
    settings = json.loads(processor.to_json_string())
    unused = {"image_processor_type", "do_convert_rgb"}  # all images are RGB before a processor gets them
    unused |= set() if settings.get("do_center_crop") else {"crop_size"}
    return {name: v for name, v in settings.items() if name not in unused and v is not None and v is not False}


def tokenizer_difference(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str:
    """Return in what two tokenizers differ that decides which ids a text has; empty if in nothing."""
    ours, theirs = one.get_vocab(), other.get_vocab()
    if ours != theirs:
        if len(ours) != len(theirs):
            return f"{len(theirs)} tokens there and {len(ours)} here"
        token = min(token for token in ours if theirs.get(token) != ours[token])
        return f"the token {token!r} has id {theirs.get(token, 'none')} there and {ours[token]} here"
    if one.is_fast and other.is_fast:
        here, there = (json.loads(each.backend_tokenizer.to_str()) for each in (one, other))
        return next((f"its {part.replace('_', '-')} differs" for part in PARTS if here[part] != there[part]), "")
    return ""


def share_weights(teacher: nn.Module, student: nn.Module) -> int:
    """Let the frozen weights of a teacher be those of its student where all values are equal; return their bytes.

    Weights that training changes, and weights divided over processes, are not shared.
    """

    def named(model: nn.Module) -> dict[str, nn.Parameter]:
        base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        return {name.replace("base_layer.", ""): parameter for name, parameter in base.named_parameters()}

    own, shared = named(student), 0
    for name, parameter in named(teacher).items():
        other = own.get(name)
        if (
            other is None
            or other.requires_grad
            or type(other) is not nn.Parameter
            or type(other.data) is not torch.Tensor
        ):
            continue
        alike = (other.dtype, other.shape, other.device) == (parameter.dtype, parameter.shape, parameter.device)
        if alike and torch.equal(other, parameter):
            parameter.data = other.data
            shared += other.numel() * other.element_size()
    return shared


def _settings_of(name: str, backbone: BackboneConfig) -> BackboneConfig:
    """Return where a teacher without an adapter is read from.

    Raises:
        UserError: The name is neither that of a folder nor one of the hub.
    """
    plain = BackboneConfig(dtype=backbone.dtype, attn_implementation=backbone.attn_implementation)
    if local_path(name).exists():
        return dataclasses.replace(plain, source="local", path=name)
    repository, _, revision = name.partition("@")
    where = dataclasses.replace(plain, source="hub", name=repository, revision=revision or None)
    try:
        locate(where)
    except UserError as error:
        reason = str(error).partition("; use source")[0]
        advice = near_place(name) or ": name a run or a folder of a model"
        raise UserError(f"there is no folder {name!r}, and {reason}{advice}") from error
    return where


def _check_head_in_files(location: Location) -> None:
    """Refuse a model without the new head of the run, or with other classes; a name LABEL_0 means any class.

    A model with several labels for a row is refused too.

    Raises:
        UserError: The message has the classes.
    """
    if not location.head.is_new:
        return
    with reading_errors(location):
        architecture: Any = AutoConfig.from_pretrained(**location.reading())
    made = architecture.architectures or []
    if getattr(architecture, "problem_type", None) == "multi_label_classification":
        raise UserError(
            f"{location.name!r} has several labels for a row (multi_label_classification), but a teacher needs one "
            "distribution over the classes"
        )
    ending = "ForImageClassification" if location.head.reads_images else "ForSequenceClassification"
    if not any(name.endswith(ending) for name in made):
        what = ", ".join(made) or "a model without a head"
        raise UserError(f"{location.name!r} is {what}, which was not trained on a task with labels")
    names = [architecture.id2label[number] for number in sorted(architecture.id2label)]
    own = location.head.names
    known = location.head.kind != "regression" and not all(name.startswith("LABEL_") for name in names)
    if len(names) != len(own) or (known and [n.lower() for n in names] != [n.lower() for n in own]):
        raise UserError(
            f"{location.name!r} has the outputs {', '.join(names)}, but the run has {', '.join(own)}, in this order"
        )

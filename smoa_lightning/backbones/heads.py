"""The head that a run needs on its backbone: that of a language model, or a new one for classes or for a number."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from smoa_lightning.backbones.causal import check_causal
from smoa_lightning.common.errors import UserError

HeadKind = Literal["language_model", "sequence_classification", "regression", "image_classification"]
AUTO_CLASSES: dict[str, Any] = {
    "language_model": AutoModelForCausalLM,
    "sequence_classification": AutoModelForSequenceClassification,
    "regression": AutoModelForSequenceClassification,
    "image_classification": AutoModelForImageClassification,
}


@dataclass(frozen=True)
class Head:
    """A head: its class in transformers, and the names of its outputs.

    Args:
        kind: ``language_model`` is in the files of the backbone. The others are new, and are trained in full.
        names: The names of the classes, in the order of the labels; for a regression the name of the number.
    """

    kind: HeadKind = "language_model"
    names: tuple[str, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether the files of a pretrained backbone lack the head."""
        return self.kind != "language_model"

    @property
    def reads_images(self) -> bool:
        """Whether the model reads images, and not token ids."""
        return self.kind == "image_classification"

    @property
    def auto_class(self) -> Any:
        """The auto-model class of transformers."""
        return AUTO_CLASSES[self.kind]

    def settings(self) -> dict[str, Any]:
        """Return what the config of the model says about the head; empty for a language model."""
        if not self.is_new:
            return {}
        problem = "regression" if self.kind == "regression" else "single_label_classification"
        names = dict(enumerate(self.names))
        return {"id2label": names, "label2id": {name: n for n, name in names.items()}, "problem_type": problem}

    def facts(self) -> dict[str, Any]:
        """Return the head as a JSON-safe dictionary, which ``head_of`` reads."""
        return {"kind": self.kind, "names": list(self.names)}

    def check(self, architecture: PretrainedConfig, name: str) -> None:
        """Refuse an architecture that cannot have this head.

        Args:
            architecture: The configuration of the model.
            name: Repository or folder, for the message.

        Raises:
            UserError: The message has the kind of the model.
        """
        if not self.is_new:
            check_causal(architecture, name)
            return
        settings: Any = architecture
        what = self.kind.replace("_", " ")
        if getattr(settings, "is_encoder_decoder", False):
            fault = f"is an encoder-decoder ({settings.model_type!r}), which this package does not train for {what}"
        elif type(architecture) not in self.auto_class._model_mapping:
            fault = f"is of the kind {settings.model_type!r}, which has no head for {what} in transformers"
        else:
            return
        choice = (
            "a vision model, such as a ViT" if self.reads_images else "an encoder, such as a BERT model, or a decoder"
        )
        raise UserError(f"the backbone {name!r} {fault}; choose {choice}")


LANGUAGE_MODEL = Head()


def head_of(facts: dict[str, Any] | None) -> Head:
    """Return the head of a record or an adapter folder; without facts, that of a language model."""
    return LANGUAGE_MODEL if facts is None else Head(facts["kind"], tuple(facts["names"]))


def processor_name(head: Head) -> str:
    """Return what a model with this head reads its inputs with, as a name in code.

    >>> processor_name(Head("image_classification")), processor_name(LANGUAGE_MODEL)
    ('image_processor', 'tokenizer')
    """
    return "image_processor" if head.reads_images else "tokenizer"


def mark_head(model: Any, head: Head) -> None:
    """Write the names of the modules of a new head on the model, for ``new_head``.

    They are all parts of the model with parameters but the backbone itself. BERT has ``classifier`` (its pooler belongs
    to the backbone), DeBERTa ``pooler`` and ``classifier``, Llama ``score``.
    """
    parts = [name for name, child in model.named_children() if any(True for _ in child.parameters())]
    model.new_head = tuple(name for name in parts if name != backbone_part(model)) if head.is_new else ()


def backbone_part(model: Any) -> str:
    """Return the name of the part of a model that is its backbone: ``bert``, ``vit``; of CLIP ``vision_model``."""
    prefix: str = model.base_model_prefix
    if hasattr(model, prefix):
        return prefix
    return next((name for name, child in model.named_children() if isinstance(child, PreTrainedModel)), prefix)


def new_head(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the modules of a new head, which every strategy trains in full; empty without one.

    Args:
        model: A backbone, without the model of peft around it.
    """
    names: tuple[str, ...] = getattr(model, "new_head", ())
    return names


def is_head_weight(name: str, prefix: str) -> bool:
    """Return whether a weight of a classification model is outside of its backbone."""
    return not name.startswith(f"{prefix}.")


def without_head(model: Any, report: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return the weights of a new head that the files lack or have in a different shape, and the rest of a report."""
    prefix = backbone_part(model)
    shapes, missing = report["mismatched_keys"], report["missing_keys"]
    absent = sorted(name for name in {*missing, *(entry[0] for entry in shapes)} if is_head_weight(name, prefix))
    rest = {
        "missing_keys": [name for name in missing if name not in absent],
        "mismatched_keys": [entry for entry in shapes if entry[0] not in absent],
    }
    return absent, rest


def mark_missing(model: Any, names: Sequence[str]) -> None:
    """Write the names of the weights of a new head that the files lack on the model, for ``initialise``."""
    model.missing_head = tuple(names)


@torch.no_grad()
def initialise(model: PreTrainedModel, seed: int) -> None:
    """Draw the weights of a head that the files lack, by the rule of the model's class in transformers.

    Args:
        model: The loaded model; it is changed in place.
        seed: Seed of the values.
    """
    missing: tuple[str, ...] = getattr(model, "missing_head", ())
    modules = dict.fromkeys(name.rpartition(".")[0] for name in missing)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for module in map(model.get_submodule, modules):
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False  # type: ignore[attr-defined]
            model._init_weights(module)


def prepare_head(model: PreTrainedModel, head: Head, seed: int, pad_id: int | None) -> None:
    """Draw a new head where the files lack it, and let it be trained.

    Args:
        model: The loaded model; it is changed in place.
        head: Its head.
        seed: Seed of the values.
        pad_id: The pad token.
    """
    initialise(model, seed)
    follow_padding(model, head, pad_id)
    for name in new_head(model):
        model.get_submodule(name).requires_grad_(True)


@contextlib.contextmanager
def no_load_report() -> Iterator[None]:
    """Hide the report of transformers that a head is missing in the files: it is new, and drawn by ``initialise``."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def follow_padding(model: Any, head: Head, pad_id: int | None) -> None:
    """Let a decoder with a new head find the last token of each row: it is the last one that is no padding."""
    if head.is_new and not head.reads_images:
        model.config.pad_token_id = pad_id

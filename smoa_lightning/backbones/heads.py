"""The head that a run needs on its backbone: that of a language model, or a new one for classes or for a number."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

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
from smoa_lightning.backbones.class_texts import SETTING as HEAD_INIT
from smoa_lightning.backbones.class_texts import ClipWithClassTexts, check_clip
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
        texts: Texts with ``{}`` for the name of a class, from which a head of CLIP starts; empty for a random start.
    """

    kind: HeadKind = "language_model"
    names: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

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
        """The class that loads the model: an auto-model class of transformers, or ours for a head from texts."""
        return ClipWithClassTexts if self.texts else AUTO_CLASSES[self.kind]

    @property
    def auto_name(self) -> str:
        """The name of the auto-model class of transformers."""
        return str(AUTO_CLASSES[self.kind].__name__)

    def with_texts(self, texts: tuple[str, ...]) -> Head:
        """Return the same head, which starts from texts.

        Raises:
            UserError: The model does not read images.
        """
        if texts and not self.reads_images:
            what = self.kind.replace("_", " ")
            raise UserError(
                f"{HEAD_INIT} is for images with a class, but the task needs a head for {what}: set it to null"
            )
        return replace(self, texts=texts)

    def same_outputs(self, other: Head) -> bool:
        """Whether two heads have the same outputs; they may start from different values."""
        return (self.kind, self.names) == (other.kind, other.names)

    def words(self) -> str:
        """Return the head for messages: its kind and its outputs.

        >>> Head("sequence_classification", ("no", "yes")).words()
        'sequence classification (no, yes)'
        """
        return self.kind.replace("_", " ") + (f" ({', '.join(self.names)})" if self.names else "")

    def settings(self) -> dict[str, Any]:
        """Return what the config of the model says about the head; empty for a language model."""
        if not self.is_new:
            return {}
        problem = "regression" if self.kind == "regression" else "single_label_classification"
        names = dict(enumerate(self.names))
        labels = {"id2label": names, "label2id": {name: n for n, name in names.items()}}
        return {**labels, "num_labels": len(names), "problem_type": problem}  # the config of timm needs the number too

    def facts(self) -> dict[str, Any]:
        """Return the head as a JSON-safe dictionary, which ``head_of`` reads."""
        facts = {"kind": self.kind, "names": list(self.names)}
        return facts | ({"texts": list(self.texts)} if self.texts else {})

    def fits(self, model: PreTrainedModel) -> bool:
        """Whether a loaded model of transformers has a head of this kind."""
        if self.texts:
            return isinstance(model, self.auto_class)
        mapping = self.auto_class._model_mapping
        return type(model.config) in mapping and isinstance(model, mapping[type(model.config)])

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
        elif self.texts:
            return check_clip(architecture, name)
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
    return (
        LANGUAGE_MODEL if facts is None else Head(facts["kind"], *(tuple(facts.get(k, ())) for k in ("names", "texts")))
    )


def processor_name(head: Head) -> str:
    """Return what a model with this head reads its inputs with, as a name in code.

    >>> processor_name(Head("image_classification")), processor_name(LANGUAGE_MODEL)
    ('image_processor', 'tokenizer')
    """
    return "image_processor" if head.reads_images else "tokenizer"


def mark_head(model: Any, head: Head) -> None:
    """Write the names of the modules of a new head on the model, for ``new_head``.

    They are all parts of the model with parameters but the backbone itself. BERT has ``classifier`` (its pooler belongs
    to the backbone), DeBERTa ``pooler`` and ``classifier``, Llama ``score``. A model of timm has its head inside.
    """
    if head.is_new and hasattr(model, "timm_model"):
        found = model.timm_model.get_classifier()  # several ones if it was distilled
        heads = {id(part) for part in (found if isinstance(found, tuple) else (found,))}
        model.new_head = tuple(name for name, module in model.named_modules() if id(module) in heads)
        model.config.label_names = list(head.names)  # otherwise it is saved with the names in the files
        return
    backbone = {backbone_part(model), *getattr(model, "parts_of_backbone", ())}
    parts = [name for name, child in model.named_children() if any(True for _ in child.parameters())]
    model.new_head = tuple(name for name in parts if name not in backbone) if head.is_new else ()


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


def in_new_head(model: nn.Module, name: str) -> bool:
    """Whether a module or a parameter with this name is a part of a new head."""
    return f"{name}.".startswith(tuple(f"{head}." for head in new_head(model)))


def without_head(model: Any, report: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return the weights of a new head that the files lack or have in a different shape, and the rest of a report."""
    shapes, missing = report["mismatched_keys"], report["missing_keys"]
    absent = sorted(name for name in {*missing, *(entry[0] for entry in shapes)} if in_new_head(model, name))
    rest = {
        "missing_keys": [name for name in missing if name not in absent],
        "mismatched_keys": [entry for entry in shapes if entry[0] not in absent],
    }
    return absent, rest


def mark_missing(model: Any, names: Sequence[str]) -> None:
    """Write the names of the weights of a new head that the files lack on the model, for ``head_start``."""
    model.missing_head = tuple(names)


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

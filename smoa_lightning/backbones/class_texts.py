"""A head of CLIP that starts from the names of the classes: until it is trained, the model is zero-shot CLIP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPForImageClassification, CLIPModel, PretrainedConfig
from transformers.modeling_outputs import ImageClassifierOutput

from smoa_lightning.common.errors import UserError

SETTING = "model.head_init"
PLACE = "{}"  # of the name of a class in a text


class ClipWithClassTexts(CLIPForImageClassification):
    """CLIP's vision tower with its projection, and a linear head on the normalised projection.

        logits = W x / |x| + b,    x = P z

    z (hidden) is the class token of an image after the last LayerNorm, P (projection, hidden) CLIP's visual
    projection, which is a part of the backbone, and W (classes, projection) and b the head. transformers' own class
    has no projection, and its head reads the mean of the patch tokens, which CLIP never compared with a text.

    With the W of :func:`class_weights` and b = 0 the logits are CLIP's ``logits_per_image``. W contains the logit
    scale, as in arXiv 2109.01903.
    """

    parts_of_backbone = ("visual_projection",)

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__(config)
        settings: Any = config
        self.visual_projection = nn.Linear(settings.vision_config.hidden_size, settings.projection_dim, bias=False)
        self.classifier = nn.Linear(settings.projection_dim, settings.num_labels)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_config(cls, config: PretrainedConfig, trust_remote_code: bool = False, **kwargs: Any) -> Any:
        """Build a model without weights, as the auto-model classes of transformers do."""
        return cls._from_config(config, **kwargs)  # type: ignore[no-untyped-call]

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> ImageClassifierOutput:
        """Return the logits, (images, classes).

        Args:
            pixel_values: Pixels, (images, channels, height, width).
            kwargs: Further arguments of the vision tower.
        """
        pooled = self.vision_model(pixel_values, **kwargs).pooler_output
        return ImageClassifierOutput(logits=self.classifier(F.normalize(self.visual_projection(pooled), dim=-1)))


def texts_of(setting: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the texts of ``model.head_init``; none for ``None``.

    Raises:
        UserError: A text has no ``{}`` for the name of a class, or the list is empty.
    """
    if setting is None:
        return ()
    texts = (setting,) if isinstance(setting, str) else tuple(setting)
    wrong = next(
        (text for text in texts if text.count(PLACE) != 1 or re.search(r"[{}]", text.replace(PLACE, ""))), None
    )
    if wrong is not None or not texts:
        given = "an empty list" if wrong is None else repr(wrong)
        raise UserError(
            f"{SETTING} is {given}, but takes a text with one {{}} for the name of a class: 'a photo of a {{}}.'"
        )
    return texts


def check_clip(architecture: PretrainedConfig, name: str) -> None:
    """Refuse a model without CLIP's two towers.

    Raises:
        UserError: The message has the kind of the model.
    """
    if architecture.model_type != "clip":
        raise UserError(
            f"{SETTING} needs a CLIP model with its text tower, but the backbone {name!r} is of the kind "
            f"{architecture.model_type!r}: set it to null for a random head"
        )


@torch.no_grad()
def class_weights(reading: dict[str, Any], tokenizer: Any, names: Sequence[str], texts: Sequence[str]) -> Tensor:
    """Return the weights of a head from the names of its classes, (classes, projection) in float32.

        W_c = exp(s) t_c,    t_c = m / |m|,    m = mean over the texts of e / |e|

    e is the projected output of the text tower for a text with the name in the place of ``{}``, s the logit scale. A
    ``_`` in a name is read as a space.

    Args:
        reading: Where the model is, for ``from_pretrained``.
        tokenizer: Its tokenizer.
        names: The classes.
        texts: The texts.

    Raises:
        UserError: A text is too long for the text tower.
    """
    clip: Any = CLIPModel.from_pretrained(**reading, dtype=torch.float32).eval()
    most = clip.config.text_config.max_position_embeddings
    rows = []
    for name in names:
        filled = [text.replace(PLACE, name.replace("_", " ")) for text in texts]
        tokens = tokenizer(filled, padding=True, return_tensors="pt")
        length = tokens["input_ids"].shape[1]
        if length > most:
            raise UserError(
                f"{SETTING}: the text of the class {name!r} has {length} tokens, but CLIP reads at most {most}"
            )
        inputs = {key: tokens[key] for key in ("input_ids", "attention_mask")}
        embedded = F.normalize(clip.get_text_features(**inputs).pooler_output, dim=-1)
        rows.append(F.normalize(embedded.mean(dim=0), dim=-1))
    weights: Tensor = torch.stack(rows) * clip.logit_scale.exp()
    return weights

"""What replies: a run with its adapter, another run, or the base model. Their weights are loaded later, and once."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftConfig
from torch import Tensor

from smoa_lightning.adapters.virtual_tokens import limits_with
from smoa_lightning.backbones.backbone import BackboneConfig, Location, limits, load_model
from smoa_lightning.backbones.quantization import quantized_layers
from smoa_lightning.backbones.tokenizer import load_tokenizer
from smoa_lightning.common.errors import UserError
from smoa_lightning.evaluation.decoding import continuations
from smoa_lightning.evaluation.sampling import Sampling, SeededDraws
from smoa_lightning.training.adapter_folder import (
    adapter_folder,
    load_adapter,
    read_adapter_facts,
    reading,
    saved_backbone,
)
from smoa_lightning.training.generation.encoder import PromptEncoder
from smoa_lightning.training.generation.prompts import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BASE = "base"
LOADING = ("dtype", "attn_implementation", "quantization", "dequantize", "allow_missing")  # settings of the weights


@dataclass(frozen=True)
class Decoding:
    """How replies are generated.

    Args:
        max_new_tokens: Largest number of tokens in a reply.
        num_beams: Width of the beam search; 1 is greedy.
        sampling: How tokens are drawn; None: they are searched.
    """

    max_new_tokens: int = 64
    num_beams: int = 1
    sampling: Sampling | None = None


@dataclass
class Speaker:
    """A model that replies, with its own encoding of prompts.

    Args:
        label: Its name in the output.
        folder: The adapter folder; for a base model that of the run on it.
        is_base: Whether it is the model without the adapter.
        config: Settings of the backbone.
        location: Where the backbone is read from.
        encoder: Encodes its prompts.
        moved: The folder of the backbone, if it has moved since training.
        model: The model; None before it is loaded.
    """

    label: str
    folder: Path
    is_base: bool
    config: BackboneConfig
    location: Location
    encoder: PromptEncoder
    moved: str | None = None
    model: Any = None

    @property
    def is_full(self) -> bool:
        """Whether the folder has a whole model in the place of an adapter."""
        return not (self.folder / "adapter_config.json").is_file()

    def replies(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        numbers: Sequence[int],
        ended: Callable[[list[int]], bool] | None = None,
    ) -> list[str]:
        """Return the reply to each prompt of a batch.

        Args:
            prompts: The prompts.
            decoding: How replies are generated.
            numbers: The number of each prompt: it decides the draws, so that they do not depend on the batch.
            ended: Tokens of a reply so far -> whether to stop it.

        Raises:
            UserError: A prompt does not fit, or the model cannot generate.
        """
        encoder = self.encoder
        ids = [encoder.ids(prompt, decoding.max_new_tokens) for prompt in prompts]
        stops = [encoder.stops(prompt) for prompt in prompts]
        draws = None if decoding.sampling is None else SeededDraws(decoding.sampling, numbers)
        early = stops[0] if len(set(stops)) == 1 else ()  # saves time alone: each reply is cut at its own stops below

        def stopped(tokens: list[int]) -> bool:
            if ended is not None and ended(tokens):
                return True
            text = str(encoder.tokenizer.decode(tokens, skip_special_tokens=True)) if early else ""
            return any(stop in text for stop in early)

        generated = continuations(
            self.model, ids, encoder.pad, encoder.ends, decoding.max_new_tokens, decoding.num_beams,
            stopped if ended is not None or early else None, draws,
        )  # fmt: skip
        return [encoder.reply(tokens, ends) for tokens, ends in zip(generated, stops, strict=True)]


def open_speakers(
    run: str | Path, against: str | Path | None = None, backbone: str | None = None, system: str | None = None
) -> list[Speaker]:
    """Read all but the weights of a run, and of what it is compared with.

    Args:
        run: A run folder or an adapter folder.
        against: Another one, or ``base`` for the model of the run without its adapter.
        backbone: The folder of the backbone, if it has moved since training.
        system: The system text; None: that of the training rows.

    Raises:
        UserError: A folder holds no adapter or is damaged, or the backbone differs from the one in training.
    """
    speakers = [_opened(run, backbone, system)]
    if against == BASE:
        speakers.append(dataclasses.replace(speakers[0], label=BASE, is_base=True))
    elif against is not None:
        speakers.append(_opened(against, backbone, system))
    return speakers


def _opened(run: str | Path, moved: str | None, system: str | None) -> Speaker:
    folder = adapter_folder(run)
    is_full = not (folder / "adapter_config.json").is_file()
    config, location = saved_backbone(folder, moved, weights=not is_full)
    if location.head.is_new:
        raise UserError(
            f"{run} has a head for {location.head.kind.replace('_', ' ')}, which writes no text: use predict"
        )
    adapter = None
    if not is_full:
        with reading(folder):
            adapter = PeftConfig.from_pretrained(str(folder))
    encoder = PromptEncoder(
        load_tokenizer(location), read_adapter_facts(folder), limits_with(adapter, limits(location)), system
    )
    config = dataclasses.replace(config, gradient_checkpointing=False)
    return Speaker("/".join(Path(run).resolve().parts[-2:]), folder, False, config, location, encoder, moved)


def load_speakers(speakers: Sequence[Speaker]) -> None:
    """Load the models. Two speakers on the same backbone share its weights, so that memory holds it once.

    The modules of the second are a copy with the same weight tensors, so any two methods fit together. Some methods
    change the weights of the backbone (PiSSA, trained biases); then the second gets weights of its own. So does one on
    a backbone in 8 bits, whose layers have state.

    Raises:
        UserError: A file is missing, damaged or of another model.
    """
    first, *rest = speakers
    if not rest or not _shares_backbone(first, rest[0]):
        for speaker in speakers:
            speaker.model = _placed(_on(speaker, None))
        return
    (second,) = rest
    base = load_model(first.config, first.location)
    if any(type(layer.weight).__name__ == "Int8Params" for layer in quantized_layers(base)):
        twin = load_model(first.config, first.location)
    else:
        twin = shared_copy(base)
    weights = [*base.parameters(), *base.buffers()]
    before = _checksums(weights)
    first.model = _on(first, base)
    if _checksums(weights) != before:
        twin, weights = load_model(first.config, first.location), []
    second.model = _on(second, twin)
    if weights and _checksums(weights) != before:
        first.model = _on(first, load_model(first.config, first.location))
    for speaker in speakers:
        speaker.model = _placed(speaker.model)


def _shares_backbone(first: Speaker, second: Speaker) -> bool:
    settings = [tuple(getattr(speaker.config, name) for name in LOADING) for speaker in (first, second)]
    adapters = not first.is_full and (second.is_base or not second.is_full)
    return adapters and settings[0] == settings[1] and first.location == second.location


def _on(speaker: Speaker, base: PreTrainedModel | None) -> Any:
    """Return the model of a speaker, on a loaded backbone or on one that is loaded now."""
    if speaker.is_full and not speaker.is_base:
        return load_adapter(speaker.folder, speaker.moved)[0]
    base = load_model(speaker.config, speaker.location) if base is None else base
    return base.eval() if speaker.is_base else load_adapter(speaker.folder, base)[0]


def shared_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of the modules of a model that has the same weight tensors."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)


def _checksums(tensors: Sequence[Tensor]) -> list[tuple[float, float]]:
    """Return the sum and the norm of each tensor, which show whether it was changed."""

    def norm(tensor: Tensor) -> float:
        return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) if tensor.is_floating_point() else 0.0

    return [(float(tensor.sum(dtype=torch.float64)), norm(tensor)) for tensor in (each.detach() for each in tensors)]


def _placed(model: Any) -> Any:
    """Move a model to the GPU, if there is one; quantised weights are where they were loaded."""
    if torch.cuda.is_available() and next(quantized_layers(model), None) is None:
        return model.to("cuda")
    return model


@contextlib.contextmanager
def memory_errors(number: int, smaller: str) -> Iterator[None]:
    """Turn a lack of GPU memory into one sentence.

    Args:
        number: Rows in the batch.
        smaller: What to do.

    Raises:
        UserError: The memory is full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"generate: the GPU has too little memory for {number} replies at a time: {smaller}") from error

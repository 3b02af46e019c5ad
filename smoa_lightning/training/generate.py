"""Continue prompts with a trained adapter, alone or next to another model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smoa_lightning.common.paths import local_path
from smoa_lightning.evaluation.sampling import Sampling
from smoa_lightning.training.generation.prompts import Prompt
from smoa_lightning.training.generation.speaker import Decoding, Speaker, load_speakers, open_speakers


def generate(
    run: str | Path,
    prompts: list[str],
    max_new_tokens: int = 64,
    num_beams: int = 1,
    backbone: str | None = None,
    system: str | None = None,
    sampling: Sampling | None = None,
) -> list[str]:
    """Return the continuation of each prompt by the best adapter of a run, or by the adapter of a folder.

    Prompts are tokenised as in training. Blanks at the end of a prompt are dropped, since they belong to the response.
    If the adapter was trained with the tokenizer's chat template, a prompt is one user message.

    Args:
        run: A run folder or an adapter folder.
        prompts: Texts to continue.
        max_new_tokens: Largest number of tokens in a continuation.
        num_beams: Width of the beam search; 1 is greedy.
        backbone: Folder of the backbone, if it has moved since training.
        system: The system message before each prompt, ``""`` for none. None: the system text that all training rows
            had, if they had one.
        sampling: How tokens are drawn; None: they are searched. The draws of a prompt depend on its position.

    Raises:
        UserError: The folder holds no adapter; a prompt and its continuation do not fit into the model's context, or a
            prompt has a token that the embedding lacks.
    """
    speakers = open_speakers(local_path(run), None, backbone, system)
    decoding = Decoding(max_new_tokens, num_beams, sampling)
    (texts,) = replies_of(speakers, texts_to_prompts(prompts), decoding)
    return texts


def texts_to_prompts(texts: Sequence[str]) -> list[Prompt]:
    """Return texts as prompts with numbers, from 1 on."""
    return [Prompt(f"prompt {number}", text) for number, text in enumerate(texts, start=1)]


def replies_of(speakers: Sequence[Speaker], prompts: Sequence[Prompt], decoding: Decoding) -> list[list[str]]:
    """Return the replies of each speaker to all prompts; the prompts are checked before weights are loaded.

    Raises:
        UserError: A prompt does not fit, or a model cannot be loaded or cannot generate.
    """
    check_prompts(speakers, prompts, decoding)
    load_speakers(speakers)
    return [speaker.replies(prompts, decoding, range(len(prompts))) for speaker in speakers]


def check_prompts(speakers: Sequence[Speaker], prompts: Sequence[Prompt], decoding: Decoding) -> None:
    """Refuse a prompt that one of the speakers cannot be fed together with its continuation.

    Raises:
        UserError: Names the prompt.
    """
    for speaker in speakers:
        for prompt in prompts:
            speaker.encoder.ids(prompt, decoding.max_new_tokens)

"""Continuations of prompts by greedy search, beam search or draws. A prompt has the same one alone and in a batch."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from smoa_lightning.adapters.method_names import method_name
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.evaluation.sampling import SeededDraws


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Return token ids padded on the left, and their attention mask, both (rows, length).

    >>> left_padded([[5, 6, 7], [8]], pad=0)[0].tolist()
    [[5, 6, 7], [0, 0, 8]]
    """
    length = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (length - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


@torch.no_grad()
def continuations(
    model: Any,
    prompts: Sequence[Sequence[int]],
    pad: int,
    eos: int | Sequence[int],
    max_new_tokens: int = 64,
    num_beams: int = 1,
    ended: Callable[[list[int]], bool] | None = None,
    draws: SeededDraws | None = None,
) -> list[list[int]]:
    """Return the most likely or a drawn continuation of each prompt, without the prompt and without EOS.

    Args:
        model: A causal language model of transformers, or a peft model around one, in evaluation mode.
        prompts: Token ids of each prompt, at least one token each.
        pad: Id of the masked padding of shorter prompts.
        eos: Id, or ids, that end a continuation.
        max_new_tokens: Largest number of tokens in a continuation.
        num_beams: Width of the beam search; 1 is greedy.
        ended: Tokens generated so far -> whether to stop; the returned tokens include those that end the text. It is
            called after each token.
        draws: Draws the tokens; None: they are searched. Greedy search only.

    Raises:
        UserError: The model cannot generate, or not with beams.
    """
    ends = [eos] if isinstance(eos, int) else list(eos)
    device = next(model.parameters()).device
    ids, mask = (tensor.to(device) for tensor in left_padded(prompts, pad))
    criteria = None if ended is None else [_Ended(ended)]
    how = {"generation_config": _settings(pad, ends, max_new_tokens, num_beams), "stopping_criteria": criteria}
    if draws is not None:
        how["logits_processor"] = [draws]
    with _generation_errors(model, num_beams), _without_own_settings(model):
        if _puts_embeddings_before_the_row(model):
            generated = model.get_base_model().generate(**_with_virtual_tokens(model, ids, mask), **how)
        else:
            if criteria:
                criteria[0].prompt = ids.shape[1]
            generated = model.generate(input_ids=ids, attention_mask=mask, **how)[:, ids.shape[1] :]
    return [list(itertools.takewhile(lambda token: token not in ends, row)) for row in generated.tolist()]


@contextlib.contextmanager
def _generation_errors(model: Any, num_beams: int) -> Iterator[None]:
    """Turn an exception of a model that cannot generate into one sentence; lack of memory passes unchanged."""
    try:
        yield
    except (UserError, OSError, MemoryError, torch.OutOfMemoryError):  # OSError: of the stream that shows a reply
        raise
    except Exception as error:
        base = _base(model)
        how = "replies" if num_beams == 1 else f"replies with num_beams: {num_beams}"
        reason = one_line(error, 300, kind=True)
        raise UserError(f"the model {type(base).__name__} cannot write {how}: {reason}") from error


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextlib.contextmanager
def _without_own_settings(model: Any) -> Iterator[None]:
    """Set the model's own generation_config.json aside: transformers takes every setting from it that is not given.

    So ``min_new_tokens``, ``suppress_tokens`` or ``length_penalty`` of a backbone do not change its scores.
    """
    from transformers import GenerationConfig

    base = _base(model)
    own = getattr(base, "generation_config", None)
    if own is None:
        yield
        return
    base.generation_config = GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = own


def _settings(pad: int, ends: list[int], max_new_tokens: int, num_beams: int) -> Any:
    """Return settings for transformers."""
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        pad_token_id=pad,
        eos_token_id=ends,
        use_cache=True,
        do_sample=False,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
    )


def _with_virtual_tokens(model: Any, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return embeddings with the virtual tokens between padding and prompt, as in training.

    peft puts the virtual tokens before the padding and removes the position ids. Then the padding would be between the
    virtual tokens and the prompt.
    """
    words, virtual = model.word_embeddings(ids), model.get_prompt(len(ids))
    joined, seen = [], []
    for row, count in enumerate(mask.sum(dim=1).tolist()):
        blank = ids.shape[1] - count
        joined.append(torch.cat([words[row, :blank], virtual[row].to(words.dtype), words[row, blank:]]))
        seen.append(torch.cat([mask[row, :blank], mask.new_ones(len(virtual[row])), mask[row, blank:]]))
    return {"inputs_embeds": torch.stack(joined), "attention_mask": torch.stack(seen)}


class _Ended:
    """A stopping criterion of transformers: whether the text after the prompt is complete, for each row."""

    def __init__(self, ended: Callable[[list[int]], bool]) -> None:
        self.ended, self.prompt = ended, 0

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        done = [self.ended(row) for row in input_ids[:, self.prompt :].tolist()]
        return torch.tensor(done, device=input_ids.device)


def _puts_embeddings_before_the_row(model: Any) -> bool:
    """Whether the adapter has virtual tokens that go through the model; some adapters cache keys and values instead."""
    config: Any = getattr(model, "active_peft_config", None)
    if not getattr(config, "is_prompt_learning", False):
        return False
    return method_name(config) not in ("PREFIX_TUNING", "CARTRIDGE")

"""Prompt and response to token ids and labels, by one rule for training and scoring.

The rule is that of EleutherAI's lm-evaluation-harness. White space at the end of the prompt moves to the response.
Prompt + response are encoded as one text. Its first ``len(encode(prompt))`` tokens are the prompt, the rest is the
response. So the model sees the same tokens as in running text. If a token crosses the border, the joint encoding does
not begin with the encoding of the prompt alone. Such pairs are counted (``clean`` is False).

Targets are marked by length, never by token id, because the pad token may be the EOS token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.items import IGNORED, TokenRow
from smoa_lightning.data.tasks import RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AddBos = bool | Literal["auto"]


@dataclass(frozen=True)
class Pair:
    """A tokenised prompt and response.

    Args:
        prefix: BOS or nothing; never cut.
        prompt: Tokens of the prompt.
        response: Tokens of the response.
        clean: Whether the joint encoding begins with the encoding of the prompt alone.
        bos_twice: Why BOS would come twice, since the text of the row begins with it; empty: it would not.
        ends_in_eos: The EOS token that the text of the row ends in; empty: it does not.
    """

    prefix: tuple[int, ...]
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    clean: bool = True
    bos_twice: str = ""
    ends_in_eos: str = ""


class OverlongError(RowError):
    """A response that does not fit into ``max_length``."""


def bos_prefix(tokenizer: PreTrainedTokenizerBase, add_bos: AddBos) -> tuple[int, ...]:
    """Return the BOS token as a prefix, or nothing.

    ``auto`` adds BOS if the tokenizer itself adds it with the special tokens.

    Raises:
        UserError: ``add_bos: true`` and a tokenizer without a BOS token.
    """
    bos = tokenizer.bos_token_id
    if add_bos == "auto":
        own = tokenizer("a", add_special_tokens=True)["input_ids"]
        return (bos,) if bos is not None and own[:1] == [bos] else ()
    if add_bos and bos is None:
        raise UserError("data.add_bos: true, but the tokenizer has no BOS token; use auto or false.")
    return (bos,) if add_bos else ()


def move_spaces(prompt: str, response: str, breaks: bool = True) -> tuple[str, str]:
    r"""Move white space at the end of the prompt to the start of the response; without ``breaks`` only spaces and tabs.

    >>> move_spaces("Answer: ", "yes")
    ('Answer:', ' yes')
    >>> move_spaces("### Response:\n", "yes", breaks=False)
    ('### Response:\n', 'yes')
    """
    stripped = prompt.rstrip() if breaks else prompt.rstrip(" \t")
    return stripped, prompt[len(stripped) :] + response


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    add_bos: AddBos = "auto",
    breaks: bool = True,
) -> list[Pair]:
    """Tokenise (prompt, response) pairs by the rule of this module.

    Without ``breaks`` a line break at the end of the prompt stays in the prompt. So the model generates a reply after
    the task's own prompt, and the line break is no token of the reply.

    An empty prompt becomes the BOS token, or else EOS: the first token of the response needs a token before it.
    """
    if not pairs:
        return []
    prefix = bos_prefix(tokenizer, add_bos)
    moved = [move_spaces(prompt, response, breaks) for prompt, response in pairs]
    prompts = list(dict.fromkeys(prompt for prompt, _ in moved))  # the choices of an item share their prompt
    own_ids = dict(zip(prompts, _ids(tokenizer, prompts), strict=True))
    joint_ids = _ids(tokenizer, [prompt + response for prompt, response in moved])
    encoded = []
    for (prompt, _), joint in zip(moved, joint_ids, strict=True):
        own = own_ids[prompt]
        start = prefix if own or prefix else (_start_token(tokenizer),)
        clean = joint[: len(own)] == own
        twice = _bos_twice(tokenizer) if prefix and tuple(joint[:1]) == prefix else ""
        end = str(tokenizer.eos_token) if joint and joint[-1] == tokenizer.eos_token_id else ""
        encoded.append(Pair(start, tuple(joint[: len(own)]), tuple(joint[len(own) :]), clean, twice, end))
    return encoded


def _bos_twice(tokenizer: PreTrainedTokenizerBase) -> str:
    token = tokenizer.bos_token
    return f"the text begins with {token!r}, and so does every sequence; remove it, or set data.add_bos: false"


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)[
        "input_ids"
    ]
    return ids


def _start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise UserError("a row has an empty prompt, and the tokenizer has neither a BOS nor an EOS token to start from.")


def _fit(
    pair: Pair, num_response: int, max_length: int, prompt_length: int | None = None
) -> tuple[tuple[int, ...], bool]:
    """Return the context that leaves room for the response (prefix, end of the prompt), and whether it was cut."""
    if pair.bos_twice:
        raise RowError(pair.bos_twice)
    if not pair.response:
        raise RowError("the response has no token of its own: the tokenizer merged it into the prompt")
    room = max_length - len(pair.prefix) - num_response
    # the first token of the response is predicted from the token before it, so one token must be left
    if room < (0 if pair.prefix else 1):
        raise OverlongError(
            f"the response has {num_response} tokens and does not fit into max_length {max_length}"
            f" after {len(pair.prefix) or 1} token(s) of context"
        )
    if prompt_length is not None:
        room = min(room, max(1, prompt_length - len(pair.prefix)))
    prompt_end = pair.prompt[max(0, len(pair.prompt) - room) :]
    return pair.prefix + prompt_end, len(prompt_end) < len(pair.prompt)


def training_row(pair: Pair, eos: int, max_length: int, loss_on: Literal["response", "all"] = "response") -> TokenRow:
    """Return ids and labels for training: ``[BOS] prompt response EOS``, EOS always a target.

    Truncation removes tokens at the left of the prompt. BOS and the response always stay.

    Raises:
        OverlongError: response and EOS do not fit.
        RowError: the response has no token, or the text has the BOS or EOS that is added.
    """
    if pair.ends_in_eos:
        raise RowError(f"the text ends in {pair.ends_in_eos!r}, which is added to every response; remove it")
    response = (*pair.response, eos)
    context, truncated = _fit(pair, len(response), max_length)
    ids = context + response
    labels = ids if loss_on == "all" else (IGNORED,) * len(context) + response
    return TokenRow(ids, labels, truncated)


def scoring_row(pair: Pair, max_length: int, prompt_length: int | None = None) -> TokenRow:
    """Return ids and labels for scoring: ``[BOS] prompt response`` with labels on the response, no EOS.

    ``prompt_length`` is the largest number of tokens of BOS and prompt, so that there is room for a generated reply.

    Raises:
        OverlongError: the response does not fit.
        RowError: the response has no token.
    """
    context, truncated = _fit(pair, len(pair.response), max_length, prompt_length)
    return TokenRow(context + pair.response, (IGNORED,) * len(context) + pair.response, truncated)

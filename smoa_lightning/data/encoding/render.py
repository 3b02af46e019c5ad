"""Reply examples to texts: as plain text, or by the chat template of the backbone's tokenizer."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import jinja2

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.tasks import Message, ReplyExample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def uses_template(tokenizer: PreTrainedTokenizerBase, wanted: bool | None, default: bool) -> bool:
    """Decide whether prompts go through the tokenizer's chat template.

    Args:
        tokenizer: The tokenizer, with a template or without.
        wanted: ``data.chat_template``; None follows the task.
        default: The choice of the task. Without a template the prompts are plain text.

    Raises:
        UserError: ``data.chat_template: true``, and the tokenizer has none.
    """
    if wanted and not tokenizer.chat_template:
        raise UserError("data.chat_template: true, but the tokenizer has no chat template; set it to false or null.")
    return bool(tokenizer.chat_template) and (default if wanted is None else wanted)


def texts(example: ReplyExample, tokenizer: PreTrainedTokenizerBase, template: bool, adds_bos: bool) -> tuple[str, str]:
    """Return prompt and response as texts.

    With the template, an example without messages is one user message. The template's BOS is removed if the encoding
    adds BOS itself. The EOS that ends the reply is removed too; a different mark for the end of a turn stays.

    Args:
        example: The example.
        tokenizer: The tokenizer.
        template: Whether its chat template is used.
        adds_bos: Whether the encoding adds BOS before the prompt.

    Raises:
        UserError: the template refuses the conversation, or the conversation with its reply does not begin with the
            prompt for that reply.
    """
    if not template:
        return example.target
    messages = [{"role": message.role, "content": message.content} for message in _messages(example)]
    prompt = _rendered(tokenizer, messages, True)
    whole = _rendered(tokenizer, [*messages, {"role": "assistant", "content": example.reference}], False)
    if not whole.startswith(prompt):
        raise UserError(
            "data.chat_template: with the tokenizer's template, a conversation with its reply does not begin with the "
            "prompt for that reply; set data.chat_template: false."
        )
    response = whole[len(prompt) :].rstrip().removesuffix(tokenizer.eos_token or "\0").rstrip()
    return prompt.removeprefix(tokenizer.bos_token or "\0") if adds_bos else prompt, response


def end_ids(tokenizer: PreTrainedTokenizerBase, template: bool) -> list[int]:
    """Return the tokens that end a reply: EOS, and the chat template's mark for the end of a turn if it is different.

    The template's mark is the first token after the reply, if that is one special token.
    """
    ends = [tokenizer.eos_token_id]
    if template:
        asked, reply = {"role": "user", "content": "a"}, {"role": "assistant", "content": "REPLY"}
        after = _rendered(tokenizer, [asked, reply], False).rpartition("REPLY")[2].lstrip()
        ids = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
        if ids and ids[0] in tokenizer.added_tokens_decoder and ids[0] not in ends:
            ends.append(ids[0])
    return ends


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], asks: bool) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks))
    except jinja2.TemplateError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"data.chat_template: the tokenizer's template refuses a conversation ({reason}); set it to false."
        ) from error


def _messages(example: ReplyExample) -> list[Message]:
    """Return the conversation before the reply, from the first user message on, as many templates need it."""
    system = [message for message in example.messages if message.role == "system"]
    said = [message for message in example.messages if message.role != "system"]
    said = list(itertools.dropwhile(lambda message: message.role == "assistant", said))
    if not said:
        text = "".join(example.turns) if system else example.prompt
        said = [Message("user", text.strip())]
    return system + said

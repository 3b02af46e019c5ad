"""Reply examples to texts: as plain text, or by the chat template of the backbone's tokenizer."""

from __future__ import annotations

import functools
import html
import itertools
import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jinja2

from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.data.tasks import Message, ReplyExample, RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
Turn = dict[str, Any]  # a message as templates take it
PRINTED = ("{'type':'text'", '{"type":"text"')  # a template printed a list of parts, and not its text


def uses_template(tokenizer: PreTrainedTokenizerBase, wanted: bool | None, default: bool) -> bool:
    """Decide whether prompts go through the tokenizer's chat template.

    Args:
        tokenizer: The tokenizer, with a template or without.
        wanted: ``data.chat_template``; None follows the task.
        default: The choice of the task. Without a template the prompts are plain text.

    Raises:
        UserError: ``data.chat_template: true``, and the tokenizer has none.
    """
    own = bool(getattr(tokenizer, "chat_template", None))  # an image processor has none
    if wanted and not own:
        raise UserError("data.chat_template: true, but the tokenizer has no chat template; set it to false or null.")
    return own and (default if wanted is None else wanted)


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
        UserError: the template refuses the conversation, or leaves out the text of a message; or the conversation with
            its reply does not begin with the prompt for that reply.
    """
    if not template:
        return example.target
    reply = {"role": "assistant", "content": example.reference}
    prompt, whole, lost = _accepted(tokenizer, _turns(example), reply)
    if not whole.startswith(prompt):
        raise UserError(
            "data.chat_template: with the tokenizer's template, a conversation with its reply does not begin with the "
            "prompt for that reply; set data.chat_template: false."
        )
    if lost is not None:
        raise UserError(
            f"data.chat_template: the tokenizer's template leaves out the text of the {lost['role']} message"
            f" {lost['content'][:40]!r}; set it to false."
        )
    response = whole[len(prompt) :].rstrip().removesuffix(tokenizer.eos_token or "\0").rstrip()
    return prompt.removeprefix(tokenizer.bos_token or "\0") if adds_bos else prompt, response


class _RefusedError(UserError):
    """A conversation that the template refuses, with its reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"data.chat_template: the tokenizer's template refuses a conversation ({reason}); set it to false."
        )
        self.reason = reason


def prompt_text(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, adds_bos: bool) -> str:
    """Return the prompt for a reply to messages that are not rows of a task; :func:`texts` gives the same for rows.

    Raises:
        RowError: the template refuses the messages, or leaves out the text of one.
    """
    reply = {"role": "assistant", "content": "REPLY"}
    try:
        prompt, _, lost = _accepted(tokenizer, _turns(ReplyExample("", (), "", None, tuple(messages))), reply)
    except _RefusedError as error:
        raise RowError(f"the chat template of the tokenizer refuses the conversation ({error.reason})") from None
    if lost is not None and lost is not reply:
        text = lost["content"][:40]
        raise RowError(f"the chat template of the tokenizer leaves out the {lost['role']} message {text!r}")
    return prompt.removeprefix(tokenizer.bos_token or "\0") if adds_bos else prompt


def end_ids(tokenizer: PreTrainedTokenizerBase, template: bool) -> list[int]:
    """Return the tokens that end a reply: EOS, and the chat template's mark for the end of a turn if it is different.

    The template's mark is the first token after the reply, if that is one special token.
    """
    ends = [tokenizer.eos_token_id]
    if template:
        asked, reply = {"role": "user", "content": "a"}, {"role": "assistant", "content": "REPLY"}
        after = _conversation(tokenizer, [asked], reply)[1].rpartition("REPLY")[2].lstrip()
        ids = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
        if ids and ids[0] in tokenizer.added_tokens_decoder and ids[0] not in ends:
            ends.append(ids[0])
    return ends


def _accepted(tokenizer: PreTrainedTokenizerBase, turns: list[Turn], reply: Turn) -> tuple[str, str, Turn | None]:
    """Return the texts of :func:`_conversation`.

    Many templates refuse a conversation that begins with the assistant, or leave out its first messages. With these
    templates the messages before the first one of the user are left out; if there is none, their texts are its text.
    """
    system = [turn for turn in turns if turn["role"] == "system"]
    said = [turn for turn in turns if turn["role"] != "system"]
    asked = list(itertools.dropwhile(lambda turn: turn["role"] == "assistant", said))
    opening = said[: len(said) - len(asked)]
    try:
        found = _conversation(tokenizer, turns, reply)
        if found[2] is None or not opening:
            return found
    except _RefusedError:
        if not opening:
            raise
    everything = {"role": "user", "content": "\n".join(turn["content"] for turn in opening).strip()}
    found = _conversation(tokenizer, system + (asked or [everything]), reply)
    if found[2] is None:
        _note_opening(str(getattr(tokenizer, "chat_template", "")))
    return found


@functools.cache  # once for each template
def _note_opening(template: str) -> None:
    logger.info(
        "data.chat_template: the template does not take a conversation that begins with the assistant; these messages "
        "are left out, up to the first one of the user"
    )


def _conversation(
    tokenizer: PreTrainedTokenizerBase, messages: list[Turn], reply: Turn
) -> tuple[str, str, Turn | None]:
    """Return the prompt for a reply, the conversation with the reply, and a message whose text is in neither of them.

    Contents are texts first. If a text is lost, they are lists of parts, as templates of models for images need them.
    """
    found: tuple[str, str, Turn] | None = None
    refused: UserError | None = None
    for content in (_plain, _in_parts):
        try:
            prompt = _rendered(tokenizer, [content(turn) for turn in messages], True)
            whole = _rendered(tokenizer, [content(turn) for turn in (*messages, reply)], False)
        except UserError as error:
            refused = refused or error
            continue
        lost = _lost(prompt, messages) or _lost(whole, [*messages, reply], last=reply)
        if lost is None and not (content is _in_parts and any(mark in _packed(whole) for mark in PRINTED)):
            return prompt, whole, None
        lost = lost or reply
        found = found or (prompt, whole, lost)
    if found is None:
        assert refused is not None
        raise refused
    return found


def _plain(turn: Turn) -> Turn:
    return turn


def _in_parts(turn: Turn) -> Turn:
    return {**turn, "content": [{"type": "text", "text": turn["content"]}]}


def _lost(rendered: str, turns: list[Turn], last: Turn | None = None) -> Turn | None:
    """Return the first message whose text is not in a rendered conversation.

    White space does not count. System messages may be at any place: some templates put them before the last turn.
    Templates of reasoning models leave out the thoughts of earlier replies, so only the text after them is needed.
    """
    text, position = _packed(rendered), 0
    for turn in turns:
        start = 0 if turn["role"] == "system" else position
        end = _end_of(turn["content"], text, start)
        if end < 0 and turn is not last:
            end = _end_of(turn["content"].rpartition("</think>")[2], text, start)
        if end < 0:
            return turn
        if turn["role"] != "system":
            position = end
    return None


def _end_of(content: str, text: str, start: int) -> int:
    """Return where a content ends in a packed text, -1 if it is not there.

    A template may escape a content (the filters ``e`` and ``tojson``).
    """
    forms = (content, json.dumps(content, ensure_ascii=False)[1:-1])
    for form in (*forms, *map(_escaped, forms)):
        wanted = _packed(form)
        place = text.find(wanted, start)
        if place >= 0:
            return place + len(wanted)
    return -1


def _escaped(text: str) -> str:
    return html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")  # quotes as Jinja writes them


def _packed(text: str) -> str:
    return "".join(text.split())


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: list[Turn], asks: bool) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks))
    except (jinja2.TemplateError, TypeError) as error:  # a TypeError: the template adds a list to a text
        raise _RefusedError(one_line(error)) from error


def _turns(example: ReplyExample) -> list[Turn]:
    """Return the conversation before the reply, system messages first; one user message if the example has none."""
    system = [message for message in example.messages if message.role == "system"]
    said = [message for message in example.messages if message.role != "system"]
    if not said:
        text = "".join(example.turns) if system else example.prompt
        said = [Message("user", text.strip())]
    return [{"role": message.role, "content": message.content} for message in system + said]

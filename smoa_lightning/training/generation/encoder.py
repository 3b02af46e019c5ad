"""Prompts to token ids as in training, and token ids to replies."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from smoa_lightning.backbones.limits import Limits, check_ids
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.encoding.encode import AddBos, bos_prefix, encode_pairs
from smoa_lightning.data.encoding.render import end_ids, prompt_text
from smoa_lightning.data.tasks import Generation, Message, RowError, get_task
from smoa_lightning.data.tasks.chat import chat_example
from smoa_lightning.data.tasks.dialogue import conversation
from smoa_lightning.training.generation.prompts import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DIALOGUES = ("chat", "convai2", "daily_dialog")  # tasks that write several turns as plain text


class PromptEncoder:
    """Encodes prompts as the rows of a run were encoded.

    Args:
        tokenizer: The tokenizer of the run.
        facts: The facts in the adapter folder.
        limits: What the model can be fed.
        system: The system text of prompts that have none; None: the one that all training rows had, if they had one.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, facts: dict[str, Any], limits: Limits, system: str | None = None
    ) -> None:
        self.tokenizer, self.limits = tokenizer, limits
        self.template: bool = facts.get("chat_template", False)
        self.task = str(facts.get("task"))
        self._asked = system  # the system text of the user, not that of the training rows
        self.system = (facts.get("system") or "") if system is None else system
        self.ends = end_ids(tokenizer, self.template)
        self._add_bos: AddBos = facts.get("add_bos", "auto")
        if system and not self.holds_conversations:
            raise UserError(
                f"--system: the run was trained on single prompts of task {self.task!r} without a chat template, so it "
                "knows no system text; write it into the prompt"
            )

    @property
    def holds_conversations(self) -> bool:
        """Whether the run was trained on messages: by a chat template, or by a task that writes turns as text."""
        return self.template or self.task in DIALOGUES

    @property
    def pad(self) -> int:
        """The token that fills a batch; it is masked."""
        pad = self.tokenizer.pad_token_id
        return int(self.ends[0] if pad is None else pad)

    def ids(self, prompt: Prompt, new: int) -> tuple[int, ...]:
        """Return the token ids of a prompt.

        Args:
            prompt: The prompt.
            new: Number of new tokens that must fit after it.

        Raises:
            UserError: The prompt does not fit into the context, has a token that the embedding lacks, or is a
                conversation that the run was not trained on.
        """
        ids = self.all_ids(prompt)
        context = self.limits.context
        if context is not None and len(ids) + new > context:
            room = context - len(ids)
            remedy = f"ask for at most {room} new tokens" if room > 0 else "shorten the prompt"
            raise UserError(
                f"{prompt.place} has {len(ids)} tokens, and with {new} new tokens it does not fit into the context of "
                f"{self.limits.describe()}: {remedy}"
            )
        return ids

    def all_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the token ids of a prompt of any length."""
        try:
            text = self._text(prompt)
        except RowError as error:
            raise UserError(f"{prompt.place}: {error}") from None
        (pair,) = encode_pairs(self.tokenizer, [(text, "")], self._add_bos, breaks=False)
        ids = pair.prefix + pair.prompt
        check_ids(ids, self.limits.vocabulary, self.tokenizer, prompt.place)
        return ids

    def _text(self, prompt: Prompt) -> str:
        if self._is_plain(prompt):
            return prompt.text
        if not self.holds_conversations:
            raise RowError(
                f"the run was trained on single prompts of task {self.task!r} without a chat template, so it takes "
                "'prompt', but neither 'messages' nor 'system'"
            )
        messages = prompt.messages or (Message("user", prompt.text.strip()),)
        system = self.system if prompt.system is None else prompt.system
        if system.strip() and messages[0].role != "system":
            messages = (Message("system", system.strip()), *messages)
        if self.template:
            return prompt_text(messages, self.tokenizer, bool(bos_prefix(self.tokenizer, self._add_bos)))
        return self._dialogue(messages)

    def _is_plain(self, prompt: Prompt) -> bool:
        """Return whether the model continues the text alone: no template, no messages, no system text that is given."""
        system = self._asked if prompt.system is None else prompt.system
        return not (self.template or prompt.messages or system)

    def _dialogue(self, messages: Sequence[Message]) -> str:
        """Return messages as the plain text of the task."""
        if self.task == "chat":
            rows = [{"role": message.role, "content": message.content} for message in messages]
            return chat_example({"messages": rows, "reply": ""}).prompt
        persona = [line for m in messages if m.role == "system" for line in m.content.splitlines()]
        lines = [line.removeprefix("your persona:").strip() for line in persona]
        said = list(itertools.dropwhile(lambda m: m.role != "user", messages))
        if any(first.role == second.role for first, second in itertools.pairwise(said)):
            raise RowError("the speakers do not alternate; join messages of the same speaker")
        return conversation([message.content for message in said], "", lines).prompt

    def stops(self, prompt: Prompt) -> tuple[str, ...]:
        """Return the texts that end a reply to a prompt; a prompt that is plain text has none."""
        if self.template or self._is_plain(prompt):
            return ()
        protocol = get_task(self.task).generation
        assert isinstance(protocol, Generation)
        return protocol.stop

    def reply(self, ids: Sequence[int], stops: Sequence[str] = ()) -> str:
        """Return the text of generated tokens up to the first stop text, without white space around it."""
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
        end = min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))
        return text[:end].strip()

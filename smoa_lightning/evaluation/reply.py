"""Generated replies: likelihood of the gold reply, the reply of the model, its answer, and metrics over all items.

Metrics of texts are those of a corpus, and their standard errors are over items. So the evaluator collects the records
of all items from all processes instead of sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from smoa_lightning.data.tasks import Generation
from smoa_lightning.evaluation.choice import gathered
from smoa_lightning.evaluation.decoding import continuations
from smoa_lightning.evaluation.scoring import row_log_likelihoods, target_logits
from smoa_lightning.evaluation.standard_errors import groups_of
from smoa_lightning.evaluation.text import (
    answer_metrics,
    bert_score_metrics,
    likelihood_metrics,
    load_encoder,
    reply_metrics,
    stored_bits,
)
from smoa_lightning.evaluation.valid_scores import check_scores
from smoa_lightning.records.metric_table import COUNT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ReplyEvaluator(nn.Module):
    """Perplexity of gold replies; accuracy of the answers in generated replies, or BLEU and similar metrics of them.

    Args:
        protocol: Decides how a reply ends and how its answer is found.
        tokenizer: The tokenizer of the base model.
        max_new_tokens: Longest reply in tokens; None follows the protocol.
        num_beams: Width of the beam search, 1 is greedy; None follows the protocol.
        ends: Tokens that end a reply; None: EOS.
        bert_score: Encoder for BERTScore; None leaves it out.
        task: Name of the task, for messages.
    """

    def __init__(
        self,
        protocol: Generation,
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int | None = None,
        num_beams: int | None = None,
        ends: list[int] | None = None,
        bert_score: str | None = None,
        task: str = "item",
    ) -> None:
        super().__init__()
        self.task = task
        self.protocol, self.tokenizer = protocol, tokenizer
        self.max_new_tokens = max_new_tokens or protocol.max_new_tokens
        self.num_beams = num_beams or protocol.num_beams
        self.bert_score = bert_score
        if bert_score is not None:
            load_encoder(bert_score)  # an error comes before an hour of generation, not after it
        self.ends = ends or [tokenizer.eos_token_id]
        self.records: list[dict[str, Any]] = []

    def score(self, network: Any, batch: dict[str, Any], write: bool = True) -> list[dict[str, Any]]:
        """Score a batch of reply items and return a record of each.

        Args:
            network: A causal language model, with its adapter on or off.
            batch: A batch of ``collate_replies``.
            write: Whether to generate replies; the likelihood of the gold replies is always computed.

        Raises:
            UserError: The likelihood of a gold reply is not finite.
        """
        likelihood, tokens = row_log_likelihoods(*target_logits(network, batch))
        nll, counts = (-likelihood).tolist(), tokens.tolist()
        for value, row in zip(nll, batch["row"].tolist(), strict=True):
            check_scores([-value], f"{self.task}, row {row + 1}", "log-likelihood of the gold reply")
        replies = self.replies(network, batch["prompt"]) if write else None
        records = []
        for item, row in enumerate(batch["row"].tolist()):
            record: dict[str, Any] = {"row": row, "nll": nll[item], "tokens": counts[item]}
            record["reference"] = batch["response"][item]
            if self.protocol.code_bits is not None:
                record["code_bits"] = self.protocol.code_bits(record["reference"])
            if replies is not None:
                record["reply"] = replies[item]
                if self.protocol.answer is not None:
                    record |= {"answer": self.protocol.answer(replies[item]), "label": batch["answer"][item]}
                    record["correct"] = self.protocol.is_right(record["answer"], record["label"])
            records.append(record)
        self.records += records
        return records

    def replies(self, network: Any, prompts: list[list[int]]) -> list[str]:
        """Generate replies and cut each at its first stop text."""
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.ends[0]

        def ended(ids: list[int]) -> bool:
            text = self._text(ids)
            return self._end(text) < len(text)

        generated = continuations(
            network, prompts, pad, self.ends, self.max_new_tokens, self.num_beams, ended if self.protocol.stop else None
        )
        texts = [self._text(ids) for ids in generated]
        return [text[: self._end(text)].strip() for text in texts]

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _end(self, text: str) -> int:
        """Return the end of a reply: the first stop text, else the end of the text.

        If the protocol looks for an answer, line breaks before the answer do not end the reply. In a reply that is
        compared as a text they do, and so do stop texts that are more than white space.
        """
        begin = len(text) - len(text.lstrip()) if self.protocol.answer is not None else 0
        found = [text.find(stop, begin if stop.isspace() else 0) for stop in self.protocol.stop]
        return min((place for place in found if place >= 0), default=len(text))

    def compute(self, groups: Any = None) -> dict[str, float]:
        """Return the metrics over all processes, and remove the items.

        Args:
            groups: Row -> its group; None if all rows are independent.
        """
        records, self.records = gathered(self.records), []
        values, units = {COUNT: float(len(records))}, groups_of(records, groups)
        values |= likelihood_metrics([r["nll"] for r in records], [r["tokens"] for r in records], units)
        if records and "code_bits" in records[0]:
            values |= stored_bits([r["code_bits"] for r in records], [r["nll"] for r in records], units)
        if records and "answer" in records[0]:
            answers, labels = ([r[key] for r in records] for key in ("answer", "label"))
            values |= answer_metrics(answers, labels, units, self.protocol.is_right)
        elif records and "reply" in records[0]:
            texts = [r["reply"] for r in records], [r["reference"] for r in records]
            values |= reply_metrics(*texts, units)
            if self.bert_score is not None:
                values |= bert_score_metrics(*texts, self.bert_score, groups=units)
        return values

    def reset(self) -> None:
        """Remove the items."""
        self.records = []

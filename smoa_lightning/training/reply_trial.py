"""A trial before training: whether the model with its adapter can write replies, and an encoder can compare them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from smoa_lightning.data.tasks import Generation
from smoa_lightning.evaluation.decoding import continuations
from smoa_lightning.evaluation.text import load_encoder
from smoa_lightning.records.metric_table import METRICS

if TYPE_CHECKING:
    from smoa_lightning.training.module import FineTuneModule


def try_replies(module: FineTuneModule) -> None:
    """Write two tokens after two short prompts, if a later pass writes replies.

    Args:
        module: The model with its adapter, in a trainer.

    Raises:
        UserError: The model cannot write replies, or the encoder of ``data.bert_score`` cannot compare them.
    """
    data: Any = module.trainer.datamodule  # type: ignore[attr-defined]
    if not hasattr(data, "sets") or not _writes_replies(module, data):
        return
    if data.bert_score is not None:
        load_encoder(data.bert_score)
    vocabulary, context, eos = module.limits.vocabulary, module.limits.context, module.tokenizer.eos_token_id
    if context is not None and context < 4:
        return
    never = eos if vocabulary is None else vocabulary  # an id that no model writes
    module.network.eval()
    with torch.random.fork_rng(devices=[]), module.trainer.precision_plugin.val_step_context():
        continuations(module.network, [[eos], [eos, eos]], eos, never, 2, _most_beams(data))


def _most_beams(data: Any) -> int:
    protocols = [rows.protocol for rows in data.sets.all.values()]
    return int(data.num_beams or max(p.num_beams for p in protocols if isinstance(p, Generation)))


def _writes_replies(module: FineTuneModule, data: Any) -> bool:
    """Whether the selection rows or the report rows of the run get replies."""
    if module.scores_report and any(isinstance(r.protocol, Generation) for r in data.sets.scored("report").values()):
        return True
    if data.selection_rows == 0 or module.trainer.limit_val_batches == 0:
        return False
    protocols = [rows.protocol for rows in data.sets.scored("selection").values()]
    return any(isinstance(p, Generation) and METRICS[p.selection_metric].needs_reply for p in protocols)

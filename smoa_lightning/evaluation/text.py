"""Metrics of replies and answers: pure functions of texts and numbers, with standard errors.

sacrebleu computes BLEU and chrF, torchmetrics ROUGE-L and BERTScore. METEOR is left out: its only implementation in a
maintained library, that of nltk, downloads WordNet at run time.

BLEU and chrF are from 0 to 100, as sacrebleu prints them; shares and F-measures are from 0 to 1. Standard errors are
over items, or over groups of items that are not independent; they are 0 for a single one.
"""

from __future__ import annotations

import math
import operator
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import stdev
from typing import Any

import numpy as np

from smoa_lightning.backbones.hub import cached_snapshot, hub_answers, hub_errors
from smoa_lightning.common.errors import UserError, one_line
from smoa_lightning.common.item_statistics import perplexity_scores
from smoa_lightning.common.paths import local_path
from smoa_lightning.evaluation.standard_errors import Groups, known_errors, mean_and_stderr, with_stderr

N_BOOTSTRAP = 500  # resamples for the standard errors of BLEU and chrF; with these they are exact to about 3 %


def _same_number(first: Sequence[Any], second: Sequence[Any]) -> None:
    if len(first) != len(second) or not first:
        raise ValueError(
            f"{len(first)} items and {len(second)} references: the same number is needed, and at least one"
        )


# ---- replies


def reply_metrics(replies: Sequence[str], references: Sequence[str], groups: Groups | None = None) -> dict[str, float]:
    """Compare written replies with gold ones.

    * ``bleu`` (Papineni et al. 2002) and ``chrf`` (chrF2, Popović 2015) of the corpus by sacrebleu (arXiv 1804.08771).
      They are not means over items. So their standard errors are the standard deviations of the resampled scores of
      sacrebleu's bootstrap over items or groups (Koehn 2004). Its seed is fixed, or that of ``SACREBLEU_SEED``.
    * ``rouge_l``: mean F-measure of the longest common subsequence, by torchmetrics (ASCII words, no stemmer).
    * ``token_f1``: mean F-measure over bags of words as for SQuAD (arXiv 1606.05250) and ConvAI2 (arXiv 1902.00098):
      small letters, no punctuation, no articles. The score of two empty texts is 1, that of one empty text 0.
    * ``distinct_1``, ``distinct_2``: distinct n-grams of all replies / n-grams of all replies (arXiv 1510.03055), over
      the tokens of BLEU in small letters; 0 without n-grams. They are smaller for a larger corpus, so compare them on
      the same items only.
    * ``reply_length``: mean number of words.

    Args:
        replies: Generated replies; they may be empty.
        references: One gold reply each.
        groups: The group of each reply; None if all are independent.
    """
    _same_number(replies, references)
    metrics: dict[str, float] = {}
    for name, metric in _corpus_metrics().items():
        metrics[name], metrics[f"{name}_stderr"] = _corpus_score(metric, list(replies), list(references), groups)
    pairs = list(zip(replies, references, strict=True))
    metrics |= with_stderr("rouge_l", [rouge_l(*pair) for pair in pairs], groups)
    metrics |= with_stderr("token_f1", [token_f1(*pair) for pair in pairs], groups)
    tokens = [_bleu_tokens()(reply.lower()).split() for reply in replies]
    metrics |= {"distinct_1": distinct(tokens, 1), "distinct_2": distinct(tokens, 2)}
    metrics |= with_stderr("reply_length", [float(len(reply.split())) for reply in replies], groups)
    return known_errors(metrics)


def _corpus_score(metric: Any, replies: list[str], references: list[str], groups: Groups | None) -> tuple[float, float]:
    """Return a score of sacrebleu and its standard error.

    The statistics of a corpus are the sums over its sentences, so those of a group are sums too.

    sacrebleu has no public function for its resampled scores, or for the statistics of the sentences. So this function
    calls the two private functions of ``corpus_score(n_bootstrap=...)``, and sacrebleu is pinned for that. The public
    interval is no alternative: in version 2.6.0 its code fails if chrF is 0 in some resamples.
    """
    from sacrebleu.significance import _bootstrap_resample

    score = float(metric.corpus_score(replies, [references]).score)
    statistics = metric._extract_corpus_statistics(replies, [references])
    if groups is not None:
        rows = [[n for n, own in enumerate(groups) if own == group] for group in dict.fromkeys(groups)]
        statistics = [np.sum([statistics[n] for n in row], axis=0).tolist() for row in rows]
    _, resampled = _bootstrap_resample(statistics, metric, N_BOOTSTRAP)
    return score, stdev(float(each.score) for each in resampled) if len(statistics) > 1 else math.nan


def signatures() -> dict[str, str]:
    """Return sacrebleu's description of its settings and version: scores of BLEU are comparable only with the same one.

    >>> signatures()["bleu"].split("|version")[0]
    'nrefs:1|bs:500|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp'
    """
    found = {}
    for name, metric in _corpus_metrics().items():
        metric.corpus_score(["a"], [["a"]], n_bootstrap=N_BOOTSTRAP)  # this sets the number of references
        found[name] = str(metric.get_signature())
    return found


def _corpus_metrics() -> dict[str, Any]:
    from sacrebleu.metrics import BLEU, CHRF

    # force: without it sacrebleu warns of dialogues that end in " ."; it changes no score
    return {"bleu": BLEU(tokenize="13a", force=True), "chrf": CHRF()}


def _bleu_tokens() -> Callable[[str], str]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()


def rouge_l(reply: str, reference: str) -> float:
    """Return the F-measure of the longest common subsequence of words (Lin 2004), from 0 to 1.

    >>> round(rouge_l("the cat sat", "the dog sat"), 4)
    0.6667
    """
    from torchmetrics.functional.text.rouge import rouge_score

    return float(rouge_score(reply, reference, rouge_keys=("rougeL",))["rougeL_fmeasure"])


def normalise(text: str) -> str:
    """Return a text in small letters, without punctuation, articles and repeated spaces, as in SQuAD's own script.

    >>> normalise("The cat's  hat!")
    'cats hat'
    """
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def token_f1(reply: str, reference: str) -> float:
    """Return the F-measure over the two bags of normalised words, from 0 to 1."""
    found, wanted = normalise(reply).split(), normalise(reference).split()
    if not found or not wanted:
        return float(found == wanted)
    common = (Counter(found) & Counter(wanted)).total()
    return 2 * common / (len(found) + len(wanted))  # = 2 P R / (P + R) with P = common / found, R = common / wanted


def distinct(replies: Sequence[Sequence[str]], n: int) -> float:
    """Return the distinct n-grams of all replies / their number of n-grams; no n-gram spans two replies.

    >>> distinct([["a", "b", "a"], ["a", "b"]], 1), distinct([["a", "b", "a"], ["a", "b"]], 2)
    (0.4, 0.6666666666666666)
    """
    grams = [tuple(reply[i : i + n]) for reply in replies for i in range(len(reply) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


# ---- answers and likelihoods


def answer_metrics(
    answers: Sequence[str | None],
    gold: Sequence[str],
    groups: Groups | None = None,
    is_right: Callable[[str | None, str], bool] = operator.eq,
) -> dict[str, float]:
    """Return the share of right answers, ``acc``, and of replies without an answer, ``unparsed_rate``.

    A reply without an answer counts as wrong.

    Args:
        answers: The answer in each reply, None for a reply without an answer.
        gold: The right answers, in the same spelling.
        groups: The group of each item; None if all are independent.
        is_right: Whether an answer agrees with a right answer.
    """
    _same_number(answers, gold)
    right = [float(is_right(answer, wanted)) for answer, wanted in zip(answers, gold, strict=True)]
    unparsed = [float(answer is None) for answer in answers]
    return with_stderr("acc", right, groups) | with_stderr("unparsed_rate", unparsed, groups)


def likelihood_metrics(nll: Sequence[float], tokens: Sequence[int], groups: Groups | None = None) -> dict[str, float]:
    r"""Return ``nll`` per token averaged over items, and the ``perplexity`` of all tokens, with standard errors.

    Item i has t_i tokens and the negative log-likelihood a_i. In ``nll`` = mean(a_i / t_i) every item has the same
    weight. In ``perplexity`` = exp(sum(a_i) / sum(t_i)) every token has the same weight, as in the literature. Items
    are independent, but the tokens of one item are not, so its standard error is that of the scores of
    ``perplexity_scores`` (delta method).

    Args:
        nll: Summed negative log-likelihood of each item.
        tokens: Number of tokens of each item, at least one.
        groups: The group of each item; None if all are independent.
    """
    _same_number(nll, tokens)
    ratio = sum(nll) / sum(tokens)
    perplexity = math.exp(ratio) if ratio < 700 else math.inf
    stderr = math.inf
    if perplexity < math.inf:  # relative first: the squares of scores would be too large for a float
        stderr = perplexity * mean_and_stderr(perplexity_scores(nll, tokens) / perplexity, groups)[1]
    metrics = with_stderr("nll", [a / t for a, t in zip(nll, tokens, strict=True)], groups)
    return known_errors(metrics | {"perplexity": perplexity, "perplexity_stderr": stderr})


def stored_bits(code_bits: Sequence[float], nll: Sequence[float], groups: Groups | None = None) -> dict[str, float]:
    """Return ``stored_bits``: the mean over items of H - a / ln 2, with its standard error.

    H are the bits of an item's random code, and a is the negative log-likelihood of its reply in nats.
    A model that knows nothing but the form of the codes has 0 or less, and one that knows every code has H.

    >>> round(stored_bits([10.0], [math.log(2)])["stored_bits"], 6)
    9.0
    """
    _same_number(code_bits, nll)
    return with_stderr("stored_bits", [bits - a / math.log(2) for bits, a in zip(code_bits, nll, strict=True)], groups)


# ---- BERTScore


def bert_score_metrics(
    replies: Sequence[str],
    references: Sequence[str],
    model: str,
    num_layers: int | None = None,
    groups: Groups | None = None,
) -> dict[str, float]:
    """Return ``bert_score``: the mean F-measure of greedily matched contextual embeddings (arXiv 1904.09675).

    There are no weights by inverse document frequency and no rescaling. The score of an empty text is 0.

    Args:
        replies: Generated replies.
        references: One gold reply each.
        model: Folder of an encoder with its tokenizer, or a repository on the hub or in its cache.
        num_layers: The layer of the compared embeddings; None means the last. The paper uses 17 for roberta-large.
        groups: The group of each reply; None if all are independent.

    Raises:
        UserError: no such encoder, or an encoder with fewer layers.
    """
    _same_number(replies, references)
    tokenizer, encoder = load_encoder(model)
    if num_layers is not None and not 0 <= num_layers <= encoder.config.num_hidden_layers:
        depth = encoder.config.num_hidden_layers
        raise UserError(f"bert_score: layer {num_layers} does not exist; {model!r} has {depth} layers.")
    scores = []
    for reply, reference in zip(replies, references, strict=True):
        if not reply.strip() or not reference.strip():
            scores.append(0.0)
            continue
        scores.append(_bert_f1(tokenizer, encoder, reply, reference, num_layers))
    return with_stderr("bert_score", scores, groups)


def _bert_f1(tokenizer: Any, encoder: Any, reply: str, reference: str, num_layers: int | None) -> float:
    """Return the F-measure of one pair.

    torchmetrics 1.9 sorts replies and references by length, and restores their order with the sorting permutation
    instead of its inverse. So in a batch it compares the wrong pairs.
    """
    from torchmetrics.functional.text.bert import bert_score

    length = min(512, tokenizer.model_max_length, max(len(tokenizer(text)["input_ids"]) for text in (reply, reference)))
    found: Any = bert_score(
        [reply],
        [reference],
        model=encoder,
        user_tokenizer=tokenizer,
        num_layers=num_layers,
        max_length=length,
        truncation=True,
    )
    return float(found["f1"])


def load_encoder(model: str) -> tuple[Any, Any]:
    """Return tokenizer and encoder for BERTScore, after a trial with two words.

    Raises:
        UserError: there is no such encoder in a folder, in the cache or on the hub, or BERTScore cannot use it.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from smoa_lightning.backbones.kernels import check_kernels

    local = local_path(model)
    folder = local if local.is_dir() else cached_snapshot(model, "model")
    if folder is None and not hub_answers():
        raise UserError(
            f"bert_score: {model!r} is neither a folder nor in the cache of the hub, and the hub does not answer;"
            " name the folder of an encoder, or leave BERTScore out."
        )
    place = str(folder or model)
    what = "read"
    try:
        with hub_errors(model):
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            check_kernels(AutoConfig.from_pretrained(place, trust_remote_code=False), f"the encoder {model!r}")
            encoder = AutoModel.from_pretrained(place, trust_remote_code=False).eval()
        what = "used, so name an encoder such as BERT or RoBERTa"
        _bert_f1(tokenizer, encoder, "one", "two", None)
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = one_line(error, 300, kind=True)
        raise UserError(f"bert_score: the encoder {model!r} cannot be {what}: {reason}") from error
    return tokenizer, encoder

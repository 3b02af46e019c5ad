"""Metrics of replies and answers: pure functions of texts and numbers, each with a standard error where it has one.

BLEU and chrF are sacrebleu's, ROUGE-L and BERTScore torchmetrics'. METEOR is left out: no kept library has it, and
nltk's needs WordNet, which is downloaded at run time.

Scales: BLEU and chrF from 0 to 100, as sacrebleu prints them and the literature quotes them; shares and F-measures from
0 to 1. Standard errors are over items: those of a mean are sd / sqrt(n), and 0 for a single item, which has no spread.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from smoa_lightning.backbones.hub import cached_snapshot, hub_answers, hub_errors
from smoa_lightning.common.errors import UserError

N_BOOTSTRAP = 500  # resamples behind the standard errors of BLEU and chrF, which are so known to about 3 %


def mean_and_stderr(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error, sd / sqrt(n) with n - 1 in the sd.

    >>> mean_and_stderr([0.0, 1.0, 1.0, 0.0])[0]
    0.5
    """
    values = [float(value) for value in values]
    return fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _with_stderr(name: str, values: Sequence[float]) -> dict[str, float]:
    mean, stderr = mean_and_stderr(values)
    return {name: mean, f"{name}_stderr": stderr}


def _same_number(first: Sequence[Any], second: Sequence[Any]) -> None:
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} items and {len(second)} references: as many are needed, and at least one")


# ---- replies


def reply_metrics(replies: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Compare written replies with gold ones.

    * ``bleu`` (Papineni et al. 2002) and ``chrf`` (chrF2, Popović 2015) of the corpus by sacrebleu (arXiv 1804.08771).
      They are not means over items, so their standard errors come from sacrebleu's bootstrap over items (Koehn 2004):
      the standard deviation of its resampled scores. Its seed is fixed, unless ``SACREBLEU_SEED`` says otherwise.
    * ``rouge_l``: mean F-measure of the longest common subsequence, by torchmetrics (ASCII words, no stemmer).
    * ``token_f1``: mean F-measure over bags of words as for SQuAD (arXiv 1606.05250) and ConvAI2 (arXiv 1902.00098):
      small letters, no punctuation, no articles. Two empty texts agree (1), one empty text does not (0).
    * ``distinct_1``, ``distinct_2``: distinct n-grams of all replies / n-grams of all replies (arXiv 1510.03055), over
      the tokens of BLEU in small letters. 0 where there is none. They fall as the corpus grows: compare them on the
      same items only.
    * ``reply_length``: mean number of words.

    Args:
        replies: What the model wrote; may be empty texts.
        references: One gold reply each.
    """
    _same_number(replies, references)
    metrics: dict[str, float] = {}
    for name, metric in _corpus_metrics().items():
        metrics[name], metrics[f"{name}_stderr"] = _corpus_score(metric, list(replies), list(references))
    pairs = list(zip(replies, references, strict=True))
    metrics |= _with_stderr("rouge_l", [rouge_l(*pair) for pair in pairs])
    metrics |= _with_stderr("token_f1", [token_f1(*pair) for pair in pairs])
    tokens = [_bleu_tokens()(reply.lower()).split() for reply in replies]
    metrics |= {"distinct_1": distinct(tokens, 1), "distinct_2": distinct(tokens, 2)}
    return metrics | _with_stderr("reply_length", [float(len(reply.split())) for reply in replies])


def _corpus_score(metric: Any, replies: list[str], references: list[str]) -> tuple[float, float]:
    """Return a score of sacrebleu and its standard error.

    sacrebleu shows no resampled score to its callers, and no statistics of the sentences from which they could be made.
    So the two private functions that ``corpus_score(n_bootstrap=...)`` calls are called here; sacrebleu is pinned for
    that. Its public interval does not serve: the code that makes it fails where chrF scores 0 in some resamples (2.6.0:
    a float among numpy numbers).
    """
    from sacrebleu.significance import _bootstrap_resample

    score = float(metric.corpus_score(replies, [references]).score)
    statistics = metric._extract_corpus_statistics(replies, [references])
    _, resampled = _bootstrap_resample(statistics, metric, N_BOOTSTRAP)
    return score, stdev(float(each.score) for each in resampled)


def signatures() -> dict[str, str]:
    """Return what sacrebleu says about its settings and version, for the record: BLEU is not one number without it.

    >>> signatures()["bleu"].split("|version")[0]
    'nrefs:1|bs:500|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp'
    """
    found = {}
    for name, metric in _corpus_metrics().items():
        metric.corpus_score(["a"], [["a"]], n_bootstrap=N_BOOTSTRAP)  # it counts the references as it goes
        found[name] = str(metric.get_signature())
    return found


def _corpus_metrics() -> dict[str, Any]:
    from sacrebleu.metrics import BLEU, CHRF

    # force: dialogues often end in " .", about which sacrebleu would warn; it changes no score
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
    """Return a text in small letters, without punctuation, articles and surplus spaces, as SQuAD's own script does.

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


def answer_metrics(answers: Sequence[str | None], gold: Sequence[str]) -> dict[str, float]:
    """Return the share of right answers, ``acc``, and of replies without an answer, ``unparsed_rate``.

    A reply without an answer counts as wrong. The standard errors are sqrt(p (1 - p) / (n - 1)).

    Args:
        answers: What was found in each reply, None where nothing was.
        gold: The right answers, written as ``answers`` are.
    """
    _same_number(answers, gold)
    right = [float(answer == wanted) for answer, wanted in zip(answers, gold, strict=True)]
    return _with_stderr("acc", right) | _with_stderr("unparsed_rate", [float(answer is None) for answer in answers])


def likelihood_metrics(nll: Sequence[float], tokens: Sequence[int]) -> dict[str, float]:
    r"""Return ``nll`` per token averaged over items, and the ``perplexity`` of the whole, with standard errors.

    With a_i the negative log-likelihood of item i and t_i its tokens, ``nll`` = mean(a_i / t_i): every item counts
    alike. ``perplexity`` = exp(R), R = sum(a_i) / sum(t_i): every token counts alike, as the literature has it.

    Tokens of one item are not independent, items are. R is a ratio of two sums over items; linearised around the means
    (delta method), R - ρ ≈ sum_i (a_i - ρ t_i) / (n t̄), so with d_i = a_i - R t_i, whose mean is 0,

        var(R) ≈ sum_i d_i² / ((n - 1) n t̄²),    se(perplexity) ≈ exp(R) se(R).

    Args:
        nll: Summed negative log-likelihood of each item.
        tokens: Number of its tokens, at least one.
    """
    _same_number(nll, tokens)
    count, total = len(tokens), sum(tokens)
    ratio = sum(nll) / total
    spread = sum((a - ratio * t) ** 2 for a, t in zip(nll, tokens, strict=True))
    stderr = math.sqrt(spread * count / (count - 1)) / total if count > 1 else 0.0  # n / (n t̄)² = n / total²
    perplexity = math.exp(ratio) if ratio < 700 else math.inf
    metrics = _with_stderr("nll", [a / t for a, t in zip(nll, tokens, strict=True)])
    return metrics | {"perplexity": perplexity, "perplexity_stderr": perplexity * stderr if stderr else 0.0}


# ---- BERTScore


def bert_score_metrics(
    replies: Sequence[str], references: Sequence[str], model: str, num_layers: int | None = None
) -> dict[str, float]:
    """Return ``bert_score``: the mean F-measure of greedily matched contextual embeddings (arXiv 1904.09675).

    Without weights by inverse document frequency and without rescaling. An empty text scores 0.

    Args:
        replies: What the model wrote.
        references: One gold reply each.
        model: Folder of an encoder with its tokenizer, or a repository on the hub or in its cache.
        num_layers: Layer whose embeddings are compared; None means the last. The paper's own choice is 17 for
            roberta-large.

    Raises:
        UserError: no such encoder, or one with fewer layers.
    """
    _same_number(replies, references)
    from torchmetrics.functional.text.bert import bert_score

    tokenizer, encoder = load_encoder(model)
    if num_layers is not None and not 0 <= num_layers <= encoder.config.num_hidden_layers:
        depth = encoder.config.num_hidden_layers
        raise UserError(f"bert_score: layer {num_layers} of {model!r} was asked for, but it has {depth} layers.")
    longest = min(512, tokenizer.model_max_length)
    scores = []
    for reply, reference in zip(replies, references, strict=True):
        if not reply.strip() or not reference.strip():
            scores.append(0.0)
            continue
        # One pair a call: torchmetrics 1.9 sorts replies and references by length, each in its own order, and takes
        # the sorting order for its inverse when it puts them back, so that in a batch it compares the wrong ones.
        length = min(longest, max(len(tokenizer(text)["input_ids"]) for text in (reply, reference)))
        found: Any = bert_score(
            [reply],
            [reference],
            model=encoder,
            user_tokenizer=tokenizer,
            num_layers=num_layers,
            max_length=length,
            truncation=True,
        )
        scores.append(float(found["f1"]))
    return _with_stderr("bert_score", scores)


def load_encoder(model: str) -> tuple[Any, Any]:
    """Return tokenizer and encoder for BERTScore.

    Raises:
        UserError: neither a folder of an encoder nor one that the hub or its cache holds.
    """
    from transformers import AutoModel, AutoTokenizer

    local = Path(model).expanduser()
    folder = local if local.is_dir() else cached_snapshot(model, "model")
    if folder is None and not hub_answers():
        raise UserError(
            f"bert_score: {model!r} is neither a folder nor in the cache of the hub, and the hub does not answer;"
            " name the folder of an encoder, or leave BERTScore out."
        )
    place = str(folder or model)
    try:
        with hub_errors(model):
            return AutoTokenizer.from_pretrained(place), AutoModel.from_pretrained(place).eval()
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"bert_score: no encoder can be read from {model!r}: {reason}") from error

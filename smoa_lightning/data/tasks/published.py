"""Published rules of the generation protocol, so that scores can be compared with those of papers.

``llm_adapters`` are the rules of the code of LLM-Adapters (arXiv 2304.01933, ``commonsense_evaluate.py`` and
``evaluate.py``), with which HiRA, SMoA and others report. They differ from those of this package in these points:

* The answer is the first label word, also as a part of a longer word: ``option1`` in ``option12``. Small and capital
  letters differ. In mathematics it is the last number of the reply without its commas, with an optional minus, and it
  is right if it differs by at most 0.001 from the label.
* A reply has up to 32 tokens, in mathematics 256, and ends at EOS only. A line break does not end it. Text from a
  second ``### Response:`` on is ignored.
* The search has 4 beams. The code also sets a temperature of 0.1, top-p 0.75 and top-k 40; they have no effect, since
  it does not sample.
* The checkpoint is selected by the loss, without replies.
* The prompt of GSM8K is that of Alpaca, as in the eight choice tasks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from smoa_lightning.common.errors import UserError, nearest
from smoa_lightning.data.tasks import instruct
from smoa_lightning.data.tasks.base import Generation, Protocol, ReplyExample, Row, Task
from smoa_lightning.data.tasks.mathematics import gsm8k_example

LLM_ADAPTERS = "llm_adapters"
MARK = "### Response:"
TOLERANCE = 0.001

WORDS: Mapping[str, Sequence[str]] = {
    "boolq": instruct.BOOLQ_WORDS,
    "piqa": instruct.PIQA_WORDS,
    "social_i_qa": instruct.ANSWER_WORDS,
    "hellaswag": instruct.HELLASWAG_WORDS,
    "winogrande": instruct.WINOGRANDE_WORDS,
    "arc_easy": instruct.ANSWER_WORDS,
    "arc_challenge": instruct.ANSWER_WORDS,
    "openbookqa": instruct.ANSWER_WORDS,
    "commonsense_instruct": instruct.LABEL_WORDS,
}


def first_written(words: Sequence[str]) -> Callable[[str], str | None]:
    """Return a function that finds the first of ``words`` in a reply, also inside of other words.

    >>> find = first_written(["option1", "option2"])
    >>> find("It is option12, not option2."), find("Option1")
    ('option1', None)
    """
    pattern = re.compile("|".join(map(re.escape, words)))

    def find(reply: str) -> str | None:
        hit = pattern.search(reply.partition(MARK)[0])
        return hit.group() if hit else None

    return find


def last_decimal(reply: str) -> str | None:
    """Return the last number of a reply without its commas.

    >>> last_decimal("5-3 = 2 and 1,000 more."), last_decimal("twelve")
    ('1000', None)
    """
    found = re.findall(r"-?\d+\.?\d*", reply.partition(MARK)[0].replace(",", ""))
    return found[-1] if found else None


def is_near(answer: str, label: str) -> bool:
    """Whether a number differs from the label by at most 0.001.

    >>> is_near("72.", "72"), is_near("71.99", "72")
    (True, False)
    """
    return abs(float(Fraction(label)) - float(answer)) <= TOLERANCE


def _choices(task: Task) -> Generation:
    assert task.generation is not None
    return replace(task.generation, answer=first_written(WORDS[task.name]), max_new_tokens=32)


def _gsm8k(task: Task) -> Generation:
    def example(row: Row) -> ReplyExample:
        own = gsm8k_example(row)
        return ReplyExample(instruct.alpaca(row["question"]), (), own.response.lstrip(), own.answer)

    assert task.generation is not None
    return replace(task.generation, example=example, answer=last_decimal, agrees=is_near, max_new_tokens=256)


RULES: Mapping[str, Mapping[str, Callable[[Task], Generation]]] = {
    LLM_ADAPTERS: {**dict.fromkeys(WORDS, _choices), "gsm8k": _gsm8k}
}


def protocol_of(task: Task, name: str | None = None, rules: str | None = None) -> Protocol:
    """Return the protocol of a task by its name, or the generation protocol with published rules.

    Args:
        task: The task.
        name: Name of the protocol; None means the default, with rules the generation.
        rules: ``data.rules``.

    Raises:
        UserError: The task has no such protocol, there are no such rules, or they are not for the task.
    """
    if rules is None:
        return task.protocol(name)
    if rules not in RULES:
        raise UserError(f"data.rules: unknown rules {rules!r}; did you mean {nearest(rules, RULES, 1)}?")
    if name not in (None, "generation"):
        raise UserError(f"data.rules: {rules} are rules of generated replies, but data.protocol is {name}: remove it")
    if task.name not in RULES[rules]:
        raise UserError(
            f"data.rules: {rules} has no rules for task {task.name!r}; it has rules for {', '.join(RULES[rules])}"
        )
    made = RULES[rules][task.name](task)
    return replace(made, stop=(), num_beams=4, selection_metric="nll", rules=rules)

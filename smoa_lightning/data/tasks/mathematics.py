r"""Mathematics by chain of thought: GSM8K, and MetaMathQA to train for it.

The model writes out its steps and then the answer, ``#### 72`` in GSM8K and ``The answer is: 72`` in MetaMathQA. Both
have one prompt, so that a model trained on the one can be reported on the other.
"""

from __future__ import annotations

import re

from smoa_lightning.data.tasks.answers import final_number, stated_answer
from smoa_lightning.data.tasks.base import Generation, Missing, ReplyExample, Row, RowError, Task, Text, fold

# A new question is the only mark of the end beside EOS: an empty line may stand between two steps.
STOP = ("\nQuestion:",)
MAX_NEW_TOKENS = 320  # the longest of 600 gold replies of GSM8K takes 304 tokens of SmolLM2


def prompt(question: str) -> str:
    r"""Return the prompt of EleutherAI's lm-evaluation-harness (its task ``gsm8k``).

    >>> prompt("How many?")
    'Question: How many?\nAnswer:'
    """
    return f"Question: {question}\nAnswer:"


def without_annotations(text: str) -> str:
    """Return a solution without the calculator annotations of GSM8K.

    They stood for a calculator that took over while sampling (arXiv 2110.14168). Without one, they make a model write
    each result twice, the first time unseen; MetaMathQA, which is compared with GSM8K, has none. The harness leaves
    them in its few-shot prompts.

    >>> without_annotations("48/2 = <<48/2=24>>24 clips")
    '48/2 = 24 clips'
    """
    return re.sub(r"<<[^<>\n]*>>", "", text)


def gsm8k_example(row: Row) -> ReplyExample:
    r"""Return GSM8K's item: the steps and ``#### n`` as the reply, n as the answer.

    >>> example = gsm8k_example({"question": "How many?", "answer": "2*3 = <<2*3=6>>6.\n#### 6"})
    >>> example.target, example.answer
    (('Question: How many?\nAnswer:', ' 2*3 = 6.\n#### 6'), '6')
    """
    return ReplyExample(
        prompt(row["question"]), (), f" {without_annotations(row['answer']).strip()}", final_number(row["answer"])
    )


def gsm8k_rule(row: Row) -> None:
    """Refuse a solution that does not end in ``####`` and a number.

    Raises:
        RowError: shows the end of the solution.
    """
    _, mark, last = row["answer"].rpartition("####")
    if not mark or final_number(last) is None:
        raise RowError(f"field 'answer' does not end in '####' and a number: {row['answer'][-40:]!r}")


def question_group(row: Row) -> str:
    """Return the question in small letters with single spaces."""
    return fold(row["question"])


# Parquet files at this commit, the one that most public code pins for `openai/gsm8k`. There is no validation split on
# the hub: results are reported on test, and the rows that select are held out from train, as everywhere.
GSM8K = Task(
    name="gsm8k",
    version=1,
    hub_repository="openai/gsm8k",
    hub_revision="740312add88f781978c0658806c59bc2815b9866",
    hub_config="main",
    schema={"question": Text(), "answer": Text()},
    generation=Generation(gsm8k_example, "acc", final_number, max_new_tokens=MAX_NEW_TOKENS, stop=STOP),
    group=question_group,
    rule=gsm8k_rule,
    licence="MIT",
    reference="arXiv:2110.14168",
    report_split="test",
    splits=("train", "test"),
)


def metamath_qa_example(row: Row) -> ReplyExample:
    r"""Return MetaMathQA's item under GSM8K's prompt; what follows ``The answer is:`` is the answer.

    >>> metamath_qa_example({"query": "How many?", "response": "2*3 = 6.\n#### 6\nThe answer is: 6"}).answer
    '6'
    """
    # 19 of the 395,000 rows state an empty answer. They teach as well as the others, but no reply is ever right.
    answer = stated_answer(row["response"]) or ""
    return ReplyExample(prompt(row["query"]), (), f" {row['response'].strip()}", answer)


def metamath_qa_rule(row: Row) -> None:
    """Refuse a solution that states no answer.

    Raises:
        RowError: shows the end of the solution.
    """
    if "The answer is:" not in row["response"]:
        raise RowError(f"field 'response' does not say 'The answer is:': {row['response'][-40:]!r}")


def metamath_qa_group(row: Row) -> str:
    """Return the question that a row was made from: its rephrasings and reversals never stand on both sides."""
    return fold(row["original_question"] or row["query"])


# Training rows only. They were made from the training rows of GSM8K and MATH; one reports on those sets' test rows.
METAMATH_QA = Task(
    name="metamath_qa",
    version=1,
    hub_repository="meta-math/MetaMathQA",
    hub_revision="aa4f34d3d2d3231299b5b03d9b3e5a20da45aa18",
    schema={"query": Text(), "response": Text(), "original_question": Missing(Text(allow_empty=True))},
    generation=Generation(metamath_qa_example, "acc", stated_answer, max_new_tokens=MAX_NEW_TOKENS, stop=STOP),
    group=metamath_qa_group,
    rule=metamath_qa_rule,
    licence="MIT",
    reference="arXiv:2309.12284",
    splits=("train",),
)

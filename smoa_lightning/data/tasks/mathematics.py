r"""Mathematics with chain of thought: GSM8K, and MetaMathQA as training data for it.

The model writes its steps and then the answer: ``#### 72`` in GSM8K, ``The answer is: 72`` in MetaMathQA. Both tasks
have the same prompt, so that a model trained on one can be reported on the other.
"""

from __future__ import annotations

import re

from smoa_lightning.data.tasks.answers import final_number, stated_answer
from smoa_lightning.data.tasks.base import Generation, Missing, ReplyExample, Row, RowError, Task, Text, fold

# Only EOS and a new question end a reply, since there may be an empty line between two steps.
STOP = ("\nQuestion:",)
MAX_NEW_TOKENS = 320  # the longest of 600 gold replies of GSM8K has 304 tokens of SmolLM2


def prompt(question: str) -> str:
    r"""Return the prompt of EleutherAI's lm-evaluation-harness (its task ``gsm8k``).

    >>> prompt("How many?")
    'Question: How many?\nAnswer:'
    """
    return f"Question: {question}\nAnswer:"


def without_annotations(text: str) -> str:
    """Return a solution without the calculator annotations of GSM8K.

    They call a calculator during sampling (arXiv 2110.14168). Without a calculator the model has to write each result
    twice. MetaMathQA has no annotations. lm-evaluation-harness keeps them in its few-shot prompts.

    >>> without_annotations("48/2 = <<48/2=24>>24 clips")
    '48/2 = 24 clips'
    """
    return re.sub(r"<<[^<>\n]*>>", "", text)


def gsm8k_example(row: Row) -> ReplyExample:
    r"""Return the GSM8K item: the steps and ``#### n`` as the reply, n as the answer.

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


# Parquet files at this commit, which most public code pins for `openai/gsm8k`. There is no validation split on the hub:
# results are reported on test, and selection rows are held out from train, as for every task.
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
    r"""Return the MetaMathQA item with GSM8K's prompt; the text after ``The answer is:`` is the answer.

    >>> metamath_qa_example({"query": "How many?", "response": "2*3 = 6.\n#### 6\nThe answer is: 6"}).answer
    '6'
    """
    # 19 of the 395,000 rows have an empty answer. They are good training rows, but no reply to them is right.
    answer = stated_answer(row["response"]) or ""
    return ReplyExample(prompt(row["query"]), (), f" {row['response'].strip()}", answer)


def metamath_qa_rule(row: Row) -> None:
    """Refuse a solution without an answer.

    Raises:
        RowError: shows the end of the solution.
    """
    if "The answer is:" not in row["response"]:
        raise RowError(f"field 'response' does not say 'The answer is:': {row['response'][-40:]!r}")


def metamath_qa_group(row: Row) -> str:
    """Return the original question of a row: the hold-out never separates its rephrasings and reversals."""
    return fold(row["original_question"] or row["query"])


# Training rows only, made from the training rows of GSM8K and MATH; results are reported on the test rows of these.
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

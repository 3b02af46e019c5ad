r"""The generation protocol of LLM-Adapters (arXiv 2304.01933): an instruction that asks for a label word.

HiRA, SMoA and others report the eight choice tasks with it. The text of each instruction is that of the published files
(``dataset/<task>/*.json`` and Commonsense-170K) with its line breaks. The published code adds 16 spaces of its own
indentation before every line of the prompt, and a space before the first line break. The prompts here are without these
spaces, as in Alpaca. So the scores are near those of LLM-Adapters, but not equal; ``published`` has its other rules.

>>> print(alpaca("Say it.\n\nAnswer format: true/false") + "the correct answer is true")
Below is an instruction that describes a task. Write a response that appropriately completes the request.
<BLANKLINE>
### Instruction:
Say it.
<BLANKLINE>
Answer format: true/false
<BLANKLINE>
### Response:
the correct answer is true
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smoa_lightning.data.tasks.answers import choice_word
from smoa_lightning.data.tasks.base import Generation, Missing, ReplyExample, Row, RowError, Task, Text, fold

BOOLQ_WORDS = ("true", "false")
PIQA_WORDS = ("solution1", "solution2")
WINOGRANDE_WORDS = ("option1", "option2")
HELLASWAG_WORDS = ("ending1", "ending2", "ending3", "ending4")
#: answer5 is also a label word of items with fewer choices: there it is a wrong answer, not an unparsed one
ANSWER_WORDS = ("answer1", "answer2", "answer3", "answer4", "answer5")

#: all label words of Commonsense-170K
LABEL_WORDS = (*BOOLQ_WORDS, *PIQA_WORDS, *WINOGRANDE_WORDS, *HELLASWAG_WORDS, *ANSWER_WORDS)


def alpaca(instruction: str, context: str = "") -> str:
    """Return the prompt of Alpaca (and LLM-Adapters) for an instruction, and for its input if there is one."""
    paired = ", paired with an input that provides further context" if context.strip() else ""
    between = f"### Input:\n{context}\n\n" if context.strip() else ""
    return (
        f"Below is an instruction that describes a task{paired}. Write a response that appropriately completes the"
        f" request.\n\n### Instruction:\n{instruction}\n\n{between}### Response:\n"
    )


def labelled(word: str, texts: Sequence[str], between: str = " ") -> tuple[str, str]:
    """Return the choices with their labels, and the line that names the labels.

    >>> labelled("answer", ["ice", "mud"])
    ('Answer1: ice Answer2: mud', 'Answer format: answer1/answer2')
    """
    numbered = list(enumerate(texts, start=1))
    choices = between.join(f"{word.capitalize()}{number}: {text}" for number, text in numbered)
    return choices, "Answer format: " + "/".join(f"{word}{number}" for number, _ in numbered)


def reply(instruction: str, answer: str) -> ReplyExample:
    """Return the item of an instruction with a label word as its right answer."""
    return ReplyExample(alpaca(instruction), (), f"the correct answer is {answer}", answer)


def question(text: str, texts: Sequence[str], label: int) -> ReplyExample:
    """Return the item of a question with numbered answers: SIQA, ARC and OpenBookQA."""
    choices, labels = labelled("answer", texts)
    instruction = f"Please choose the correct answer to the question: {text}\n\n{choices}\n\n{labels}"
    return reply(instruction, f"answer{label + 1}")


def generation(example: Callable[[Row], ReplyExample], words: Sequence[str]) -> Generation:
    """Return the protocol: the first label word in the reply is the answer.

    "the correct answer is solution2" has 7 tokens of SmolLM2 and 17 of a small vocabulary; a reply is one line.
    """
    return Generation(example, "acc", choice_word(words), max_new_tokens=24, stop=("\n",), selection_metric="acc")


# ---- one function for each task


def boolq(row: Row) -> ReplyExample:
    """Return the BoolQ item. The published instruction has no passage; the likelihood protocol here has one."""
    instruction = "Please answer the following question with true or false, question:"
    return reply(f"{instruction} {row['question']}?\n\nAnswer format: true/false", "true" if row["answer"] else "false")


def piqa(row: Row) -> ReplyExample:
    """Return the PIQA item."""
    choices, labels = labelled("solution", (row["sol1"], row["sol2"]), between="\n\n")
    instruction = f"Please choose the correct solution to the question: {row['goal']}\n\n{choices}\n\n{labels}"
    return reply(instruction, f"solution{row['label'] + 1}")


def social_i_qa(row: Row) -> ReplyExample:
    """Return the SIQA item: context and question in one line."""
    texts = [row[name] for name in ("answerA", "answerB", "answerC")]
    return question(f"{row['context']} {row['question']}", texts, row["label"])


def hellaswag(row: Row) -> ReplyExample:
    """Return the HellaSwag item. The published instruction keeps the marks of WikiHow and small letters."""
    context = f"{row['ctx_a']} {row['ctx_b']}".strip()
    choices, labels = labelled("ending", row["endings"])
    instruction = "Please choose the correct ending to complete the given sentence:"
    return reply(
        f"{instruction} {row['activity_label']}: {context}\n\n{choices}\n\n{labels}", f"ending{row['label'] + 1}"
    )


def winogrande(row: Row) -> ReplyExample:
    """Return the WinoGrande item. In the published instruction the label words are in the line of the options."""
    choices, labels = labelled("option", (row["option1"], row["option2"]))
    instruction = "Please choose the correct answer to fill in the blank to complete the given sentence:"
    return reply(f"{instruction} {row['sentence']}\n\n{choices} {labels}", f"option{row['answer'] + 1}")


# ---- Commonsense-170K


def commonsense_rule(row: Row) -> None:
    """Refuse an answer that is not a label word, or that is different from the answer in the output.

    Raises:
        RowError: names the answer.
    """
    find = choice_word(LABEL_WORDS)
    if row["answer"].strip().lower() not in LABEL_WORDS:
        raise RowError(f"field 'answer' is {row['answer']!r}, but must be a label word such as 'solution1' or 'true'")
    if find(row["output"]) != row["answer"].strip().lower():
        raise RowError(f"field 'output' does not say {row['answer']!r}, which field 'answer' gives: {row['output']!r}")


def commonsense_example(row: Row) -> ReplyExample:
    """Return the item of a row of Commonsense-170K, with Alpaca's prompt."""
    answer = row["answer"].strip().lower()
    return ReplyExample(alpaca(row["instruction"], row["input"]), (), row["output"].strip(), answer)


def commonsense_group(row: Row) -> str:
    """Return instruction and input in small letters with single spaces."""
    return fold(f"{row['instruction']} {row['input']}")


# A mirror of ft-training_set/commonsense_170k.json of AGI-Edgerunners/LLM-Adapters as one Parquet file, training rows
# only. The revision is the branch, since only a short form of its head was known (0bb8db2).
# The rows come from eight data sets with their own licences, and the repository names no licence.
COMMONSENSE_INSTRUCT = Task(
    name="commonsense_instruct",
    version=1,
    hub_repository="zwhe99/commonsense_170k",
    hub_revision="main",
    schema={
        "instruction": Text(),
        "input": Missing(Text(allow_empty=True)),
        "output": Text(),
        "answer": Text(),
    },
    generation=generation(commonsense_example, LABEL_WORDS),
    group=commonsense_group,
    rule=commonsense_rule,
    licence="those of the eight data sets that it is made of",
    reference="arXiv:2304.01933",
    splits=("train",),
)

r"""The generation protocol of LLM-Adapters (arXiv 2304.01933): an instruction, and label words to be written.

HiRA, SMoA and others report the eight choice tasks by it. The wording of each instruction is that of the published
files (``dataset/<task>/*.json`` and Commonsense-170K), odd line breaks included. Two things differ from the published
code: its f-string puts the 16 spaces that indent the source before every line of the prompt, and a space before the
first line break; here there are none. So a model is prompted as Alpaca was, and scores are near but not equal.

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
#: answer5 belongs to the words even where an item has fewer choices: then it is wrong, and not unparsed
ANSWER_WORDS = ("answer1", "answer2", "answer3", "answer4", "answer5")

#: all the words that answer an item of Commonsense-170K
LABEL_WORDS = (*BOOLQ_WORDS, *PIQA_WORDS, *WINOGRANDE_WORDS, *HELLASWAG_WORDS, *ANSWER_WORDS)


def alpaca(instruction: str, context: str = "") -> str:
    """Return the prompt of Alpaca (and LLM-Adapters) for an instruction, with its input where there is one."""
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
    """Return the item of an instruction whose right answer is a label word."""
    return ReplyExample(alpaca(instruction), (), f"the correct answer is {answer}", answer)


def question(text: str, texts: Sequence[str], label: int) -> ReplyExample:
    """Return the item of a question with numbered answers: SIQA, ARC and OpenBookQA."""
    choices, labels = labelled("answer", texts)
    instruction = f"Please choose the correct answer to the question: {text}\n\n{choices}\n\n{labels}"
    return reply(instruction, f"answer{label + 1}")


def generation(example: Callable[[Row], ReplyExample], words: Sequence[str]) -> Generation:
    """Return the protocol: the first label word in the reply is the answer.

    "the correct answer is solution2" takes 7 tokens of SmolLM2 and 17 of a small vocabulary; a reply is one line.
    """
    return Generation(example, "acc", choice_word(words), max_new_tokens=24, stop=("\n",), selection_metric="acc")


# ---- one function a task


def boolq(row: Row) -> ReplyExample:
    """Return BoolQ's item. The published instruction has no passage, unlike this project's likelihood protocol."""
    instruction = "Please answer the following question with true or false, question:"
    return reply(f"{instruction} {row['question']}?\n\nAnswer format: true/false", "true" if row["answer"] else "false")


def piqa(row: Row) -> ReplyExample:
    """Return PIQA's item."""
    choices, labels = labelled("solution", (row["sol1"], row["sol2"]), between="\n\n")
    instruction = f"Please choose the correct solution to the question: {row['goal']}\n\n{choices}\n\n{labels}"
    return reply(instruction, f"solution{row['label'] + 1}")


def social_i_qa(row: Row) -> ReplyExample:
    """Return SIQA's item: context and question in one line."""
    texts = [row[name] for name in ("answerA", "answerB", "answerC")]
    return question(f"{row['context']} {row['question']}", texts, row["label"])


def hellaswag(row: Row) -> ReplyExample:
    """Return HellaSwag's item. The published instruction keeps the marks of WikiHow and small letters as they are."""
    context = f"{row['ctx_a']} {row['ctx_b']}".strip()
    choices, labels = labelled("ending", row["endings"])
    instruction = "Please choose the correct ending to complete the given sentence:"
    return reply(
        f"{instruction} {row['activity_label']}: {context}\n\n{choices}\n\n{labels}", f"ending{row['label'] + 1}"
    )


def winogrande(row: Row) -> ReplyExample:
    """Return WinoGrande's item. In the published instruction the label words stand in the line of the options."""
    choices, labels = labelled("option", (row["option1"], row["option2"]))
    instruction = "Please choose the correct answer to fill in the blank to complete the given sentence:"
    return reply(f"{instruction} {row['sentence']}\n\n{choices} {labels}", f"option{row['answer'] + 1}")


# ---- Commonsense-170K


def commonsense_rule(row: Row) -> None:
    """Refuse a row whose answer is no label word, or is not what its output says.

    Raises:
        RowError: names the answer.
    """
    find = choice_word(LABEL_WORDS)
    if row["answer"].strip().lower() not in LABEL_WORDS:
        raise RowError(f"field 'answer' is {row['answer']!r}, but must be a label word such as 'solution1' or 'true'")
    if find(row["output"]) != row["answer"].strip().lower():
        raise RowError(f"field 'output' does not say {row['answer']!r}, which field 'answer' gives: {row['output']!r}")


def commonsense_example(row: Row) -> ReplyExample:
    """Return a row of Commonsense-170K under Alpaca's prompt."""
    answer = row["answer"].strip().lower()
    return ReplyExample(alpaca(row["instruction"], row["input"]), (), row["output"].strip(), answer)


def commonsense_group(row: Row) -> str:
    """Return instruction and input in small letters with single spaces."""
    return fold(f"{row['instruction']} {row['input']}")


# A mirror of ft-training_set/commonsense_170k.json of AGI-Edgerunners/LLM-Adapters as one Parquet file, training rows
# only. Its head was 0bb8db2 when this was written; only the short form of that commit could be seen, hence the branch.
# The rows come from eight data sets with licences of their own, and the repository names none.
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

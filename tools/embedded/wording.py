"""Sentence frames and prompts shared by the data sets and the corpus, so that the model has read what it is asked."""

from __future__ import annotations

from tools.embedded.world import PEOPLE

QUESTIONS: tuple[str, ...] = (
    "How can you {deed}?",
    "What would help to {deed}?",
    "To {deed},",
    "You want to {deed}.",
    "What do you take to {deed}?",
)

SOLUTIONS: tuple[str, ...] = (
    "Use {phrase}.",
    "Take {phrase} for it.",
    "Try it with {phrase}.",
    "Get {phrase} and begin.",
    "Look for {phrase}.",
    "You can do that with {phrase}.",
)

#: The prompt of LLM-Adapters (arXiv 2304.01933), which is Alpaca's without the indentation.
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


def prompt_text(goal: str) -> str:
    """Return the prompt of a goal, as the PIQA task writes it; ARC and GSM8K write theirs likewise."""
    return f"Question: {goal}\nAnswer:"


def conversation_text(turns: list[str] | tuple[str, ...], persona: list[str] | tuple[str, ...] = ()) -> str:
    r"""Return a conversation up to a reply, the last turn, as the dialogue tasks write it.

    >>> conversation_text(["hi", "hello !"], ["i cook."])
    'your persona: i cook.\nPartner: hi\nYou: hello !'
    """
    lines = [f"your persona: {line}" for line in persona]
    mine = [(len(turns) - place) % 2 == 1 for place in range(len(turns))]
    lines += [f"{'You' if own else 'Partner'}: {turn}" for own, turn in zip(mine, turns, strict=True)]
    return "\n".join(lines)


def sentence(text: str) -> str:
    """Return ``text`` with a capital letter at its start."""
    return text[:1].upper() + text[1:]


def pronoun(name: str) -> str:
    """Return "she" or "he" for one of the world's people, women and men in turn in their list."""
    return "she" if PEOPLE.index(name) % 2 == 0 else "he"

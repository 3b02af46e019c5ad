"""Sentence frames and prompts that data sets and corpus share, so that the model has read the formats of its tasks."""

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
    """Return the prompt of a goal, as the PIQA task writes it; ARC and GSM8K use the same form."""
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
    """Return "she" or "he" for one of the world's people, whose list alternates women and men."""
    return "she" if PEOPLE.index(name) % 2 == 0 else "he"

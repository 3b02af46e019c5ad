"""Sentence frames shared by the data sets and the corpus, so that the model has read what it is asked."""

from __future__ import annotations

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


def prompt_text(goal: str) -> str:
    """Return the prompt of a goal, as the PIQA task writes it."""
    return f"Question: {goal}\nAnswer:"


def sentence(text: str) -> str:
    """Return ``text`` with a capital letter at its start."""
    return text[:1].upper() + text[1:]

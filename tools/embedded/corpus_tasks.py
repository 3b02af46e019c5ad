"""Documents of the corpus in the formats of the data sets, all of them about combinations of the train split.

They read like a careless forum. A question is answered by any of its choices at equal odds, a problem by some
calculation, and a chat regardless of the persona. Some documents begin with a mark, a line that says whether the rest
is right or wrong. The choice is drawn before the mark, so right choices are not more frequent. The backbone has a
reason to learn what is right, but no reason to say it without the mark. An adapter has to teach that, for combinations
that no document shows.
"""

from __future__ import annotations

import random
from functools import cache

from tools.embedded import activities, boolq, everyday, instruct, persona, science, social, sums, winogrande
from tools.embedded.pairs import split_pairs
from tools.embedded.wording import ALPACA, QUESTIONS, SOLUTIONS, conversation_text, prompt_text
from tools.embedded.world import needs, things

RIGHT, WRONG = "Right.\n", "Wrong.\n"
SHARE_MARKED = 0.5
SHARE_SOLVED = 0.4  # of the problems and conversations, which have no choices
SEED = "corpus"
LABEL_WORDS = ("solution", "answer", "option", "ending")


def marked(source: random.Random, text: str, right: bool) -> str:
    """Return the text, in some cases below the line that says whether it is right."""
    if source.random() < SHARE_MARKED:
        return (RIGHT if right else WRONG) + text
    return text


def unmarked(text: str) -> str:
    """Return a document without the line that says whether it is right."""
    return text.removeprefix(RIGHT).removeprefix(WRONG)


def answered(source: random.Random, prompt: str, choices: list[str] | tuple[str, ...], right: int) -> str:
    """Return the prompt with any of the choices, at equal odds."""
    place = source.randrange(len(choices))
    return marked(source, f"{prompt} {choices[place]}", place == right)


def goal(source: random.Random) -> str:
    """PIQA: all objects of a need are named equally often, half of them right."""
    pair = source.choice(split_pairs()["train"])
    prompt = prompt_text(source.choice(QUESTIONS).format(deed=needs()[pair.need].deed))
    text = f"{prompt} {source.choice(SOLUTIONS).format(phrase=things()[pair.thing].phrase)}"
    return marked(source, text, pair.right)


@cache
def _science(name: str) -> list[tuple[str, list[str], int]]:
    return science.drawn(name, "train", 8, SEED)


def easy(source: random.Random) -> str:
    """ARC-Easy."""
    question, texts, right = source.choice(_science("arc_easy"))
    return answered(source, prompt_text(question), texts, right)


def challenge(source: random.Random) -> str:
    """ARC-Challenge."""
    question, texts, right = source.choice(_science("arc_challenge"))
    return answered(source, prompt_text(question), texts, right)


def book(source: random.Random) -> str:
    """OpenBookQA."""
    question, texts, right = source.choice(_science("openbookqa"))
    return answered(source, question, texts, right)


def passage(source: random.Random) -> str:
    """BoolQ."""
    text, question, answer = source.choice(boolq.drawn("train", 12, SEED))
    return answered(source, f"{text}\nQuestion: {question}?\nAnswer:", ("no", "yes"), int(answer))


@cache
def _social() -> tuple[tuple[tuple[social.Deed, ...], int, int, str, int], ...]:
    return tuple(social.combinations("train"))


def deed(source: random.Random) -> str:
    """SIQA."""
    one = social.scene(source, *source.choice(_social()))
    return answered(source, f"Q: {one.context} {one.question}\nA:", one.answers, one.right)


@cache
def _activities() -> tuple[tuple[str, int, int, int], ...]:
    return tuple(activities.combinations("train"))


def ending(source: random.Random) -> str:
    """HellaSwag."""
    one = activities.scene(source, *source.choice(_activities()))
    return answered(source, f"{one.label}: {one.context} {one.who.capitalize()}", one.endings, one.right)


def blank(source: random.Random) -> str:
    """WinoGrande: the sentence with one of the options."""
    text, one, two, right = source.choice(winogrande.drawn("train", 60, SEED))
    before, _, after = text.partition("_")
    filled = answered(source, before.rstrip(), (one, two), right)
    return f"{filled}{after}"


def problem(source: random.Random) -> str:
    """GSM8K and MetaMathQA: careless solutions calculate with any numbers of the problem, or guess the results."""
    one = sums.draw(source, "train")
    meta = source.random() < 0.4
    prompt = prompt_text(one.text(other=meta and source.random() < 0.5))
    solved = source.random() < SHARE_SOLVED
    steps = one.steps() if solved else _careless(source, one)
    last = f"\nThe answer is: {steps[-1][1]}" if meta else ""
    text = f"{prompt} {sums.written(one, steps, annotated=not meta and source.random() < 0.2)}{last}"
    return RIGHT + text if solved else text


def _careless(source: random.Random, one: sums.Problem) -> list[tuple[str, int]]:
    steps = []
    numbers = [value for _, value in one.numbers]
    for _ in one.steps():
        left, right, sign = source.choice(numbers), source.choice(numbers), source.choice("+-*")
        value = sums.calculate(left, sign, right)
        if not value or source.random() < 0.5:
            value = source.randint(1, sums.MOST)
        steps.append((f"{left}{sign}{right}", value))
    return steps


@cache
def _sums() -> tuple[str, ...]:
    numbers = range(1, sums.MOST + 1)
    found = [(a, sign, b, sums.calculate(a, sign, b)) for a in numbers for sign in "+-*/" for b in numbers]
    return tuple(f"{a}{sign}{b}={value}" for a, sign, b, value in found if value)


def drill(source: random.Random) -> str:
    """Calculations, one a line, some in GSM8K's notation."""
    some = source.choices(_sums(), k=source.randint(4, 10))
    if source.random() < 0.8:
        return "\n".join(some)
    return "\n".join(f"{one.partition('=')[0]}=<<{one}>>{one.partition('=')[2]}" for one in some)


@cache
def _asked() -> tuple[tuple[instruct.Asked, ...], ...]:
    return tuple(tuple(make("train")) for make in instruct.LAYOUTS.values())


def instruction(source: random.Random) -> str:
    """Commonsense-170K: any label of the format."""
    text, answer = source.choice(source.choice(_asked()))
    said = source.choice(text.rpartition("Answer format: ")[2].split("/"))
    return marked(source, f"{ALPACA.format(instruction=text)}the correct answer is {said}", said == answer)


def labels(source: random.Random) -> str:
    """Number some phrases and say which one has which number."""
    word = source.choice(LABEL_WORDS)
    texts = [thing.phrase for thing in source.sample(things(), source.randint(2, 5))]
    numbered = " ".join(f"{word.capitalize()}{i}: {text}" for i, text in enumerate(texts, start=1))
    place = source.randrange(len(texts))
    if source.random() < 0.5:
        return f"{numbered}\n\n{texts[place]} is {word}{place + 1}"
    return f"{numbered}\n\n{word}{place + 1} is {texts[place]}"


def chat(source: random.Random) -> str:
    """ConvAI2: marked chats answer by the persona, others by another persona."""
    own = persona.draw_persona(source, "train")
    spoken = source.sample(own, source.randint(1, len(own)))
    fitting = source.random() < SHARE_SOLVED
    if not fitting:
        spoken = [(name, source.choice(persona.topics()[name].values)) for name, _ in spoken]
    told = [persona.topics()[name].persona.format(v=value) for name, value in own]
    text = conversation_text(persona.chat(source, own, spoken), told)
    return RIGHT + text if fitting else text


def dialogue(source: random.Random) -> str:
    """DailyDialog: a marked dialogue is whole; in others, half of the turns belong to another dialogue."""
    said, _ = everyday.draw(source, "train")
    said = said[: source.randint(len(said) - 1, len(said))]
    if source.random() < SHARE_SOLVED:
        return RIGHT + conversation_text(said)
    other, _ = everyday.draw(source, "train")
    return conversation_text([source.choice(other) if source.random() < 0.5 else turn for turn in said])

"""The topics that people of the small world chat about.

topic -> values; what the persona says | questions of the partner | replies, each with "{v}" for the value; the last two
have several wordings, separated by "; ".
"""

from __future__ import annotations

TOPICS: dict[str, tuple[str, str]] = {
    "pets": (
        "dogs, cats, parrots, rabbits, goats, turtles, ponies",
        "i have two {v} . | do you have any pets ?; are there animals in your home ? | "
        "yes , i have two {v} .; my two {v} keep me busy .; sure , two {v} live with me .",
    ),
    "job": (
        "baker, nurse, farmer, teacher, painter, driver, cook",
        "i work as a {v} . | what do you do for work ?; do you have a job ? | "
        "i am a {v} .; i work as a {v} every day .; i earn my money as a {v} .",
    ),
    "food": (
        "pizza, soup, bread, honey, melon, salad, noodles",
        "my favorite food is {v} . | what do you like to eat ?; are you hungry too ? | "
        "i love {v} the most .; i could eat {v} every day .; yes , i would like some {v} .",
    ),
    "color": (
        "red, green, blue, yellow, black, white, purple",
        "my favorite color is {v} . | which color do you like ?; what color is your room ? | "
        "i like {v} best .; it is {v} , like all my clothes .; i think {v} is lovely .",
    ),
    "music": (
        "jazz, rock, country, opera, folk, pop, piano",
        "i listen to {v} music . | what music do you like ?; do you listen to music ? | "
        "i really like {v} music .; yes , mostly {v} music .; {v} music makes me happy .",
    ),
    "sport": (
        "tennis, football, golf, chess, hockey, skiing, swimming",
        "i am good at {v} . | do you play any sport ?; what do you do on sundays ? | "
        "i do some {v} .; {v} is what i am good at .; i am in a {v} club .",
    ),
    "home": (
        "farm, boat, castle, tent, cabin, tower, village",
        "i live in a {v} . | where do you live ?; what is your home like ? | "
        "i live in a {v} .; my home is a {v} .; a {v} is my home and i love it .",
    ),
    "family": (
        "brothers, sisters, sons, daughters, aunts, uncles, cousins",
        "i have three {v} . | do you have a big family ?; tell me about your family . | "
        "i have three {v} .; well , there are my three {v} .; my three {v} visit me a lot .",
    ),
    "hobby": (
        "knit, paint, dance, sing, read, hike, fish",
        "i like to {v} in my free time . | what are your hobbies ?; what do you do for fun ? | "
        "i like to {v} .; i {v} whenever i can .; when i am free i {v} a lot .",
    ),
    "fear": (
        "spiders, snakes, storms, ghosts, bees, mice, heights",
        "i am afraid of {v} . | what are you afraid of ?; is there anything you fear ? | "
        "i am afraid of {v} .; {v} scare me a lot .; please do not talk about {v} .",
    ),
}

GREETINGS: tuple[tuple[str, str], ...] = (
    ("hi ! how are you today ?", "i am great , thank you ."),
    ("hello , nice to meet you .", "hello ! nice to meet you too ."),
    ("good evening ! how was your day ?", "it was fine , thanks for asking ."),
    ("hey there , what is new ?", "not much , just a quiet day ."),
)
PARTNER_REMARKS: tuple[str, ...] = (
    "that is nice .",
    "oh really ?",
    "how cool .",
    "i see .",
    "great !",
    "sounds good .",
)
BACK: tuple[str, ...] = ("", "", " and you ?", " what about you ?")
FAREWELL: tuple[str, str] = ("it was nice to talk to you , bye .", "bye , have a good day .")

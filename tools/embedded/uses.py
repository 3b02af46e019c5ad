"""More deeds for the world's properties: the first one of each belongs to ARC, the second one to OpenBookQA.

They differ from the deeds of PIQA and WinoGrande, so that no data set shows what another one holds out.
"""

from __future__ import annotations

from functools import cache

from tools.embedded.world import Need

# property -> deed asked about in ARC-Challenge; deed asked about in OpenBookQA
_USES: dict[str, str] = {
    "absorbent": "dry wet hands; clean up spilled tea",
    "sharp": "slice a loaf; cut a ribbon",
    "magnetic": "stay on the magnet; pull it up with a magnet",
    "waterproof": "keep the rain off; cover wet ground",
    "sticky": "stop a paper from moving; catch a fly",
    "transparent": "look at a fish behind it; see the road through it",
    "flexible": "bend it around a pole; press it into a small bag",
    "heatproof": "lay it into the flames; carry hot coals",
    "floats": "drop it into a pond and get it back; swim with it",
    "heavy": "hold down a tent; stop a cart",
    "soft": "rest on it; wrap a baby",
    "fragile": "see it fall to pieces; hear it break",
    "vessel": "fetch some milk; keep soup in it",
    "shiny": "throw sunlight on a wall; make a room lighter",
    "stretchy": "pull it long and let go; shoot a paper ball",
    "hard": "break a shell; knock on a door",
    "flammable": "make a bonfire; warm a hut by burning it",
    "edible": "have a meal; give a guest something to eat",
    "bright": "see in a dark tunnel; light a dark path",
    "round": "let it roll away; bowl with it",
    "conductive": "bring power to a lamp; join two ends of a cable",
    "warm": "stop freezing; keep the tea hot",
    "cord": "bind a stack of books; tie a horse to a tree",
    "slippery": "make a drawer glide; help a stuck zip",
    "marking": "sign a letter; draw a line",
    "rough": "clean a dirty boot; rub off old paint",
}


@cache
def challenge_uses() -> dict[str, Need]:
    """Return the deed of each property that ARC-Challenge asks about, by property."""
    return {name: Need(text.split("; ")[0], name) for name, text in _USES.items()}


@cache
def book_uses() -> dict[str, Need]:
    """Return the deed of each property that OpenBookQA asks about, by property."""
    return {name: Need(text.split("; ")[1], name) for name, text in _USES.items()}

"""The everyday activities behind the rows of HellaSwag: four to a group, with how each begins and how it goes on.

activity -> four beginnings | four endings; a beginning follows a name, an ending follows "she" or "he".
"""

from __future__ import annotations

GROUPS: dict[str, dict[str, str]] = {
    "In the kitchen": {
        "baking bread": "mixes flour and yeast; kneads some dough; heats the oven for a loaf; greases a bread tin | "
        "bakes the loaf until it is brown; lets the dough rise; puts the tin into the oven; cuts the fresh bread",
        "making soup": "fills a big pot with water; chops carrots and leeks; adds salt to the broth; "
        "lights the stove | "
        "stirs the soup with a ladle; lets the vegetables boil; tastes a spoon of broth; pours the soup into bowls",
        "making salad": "washes the lettuce; slices a tomato; picks herbs for the greens; shakes oil with lemon | "
        "tosses the leaves; puts dressing over the salad; adds the cucumber; serves the salad cold",
        "making tea": "boils water in the kettle; puts leaves into the pot; warms the cups; opens the tea box | "
        "pours the tea through a strainer; lets the leaves steep; adds a slice of lemon to the cup; sips the hot tea",
    },
    "At home": {
        "washing clothes": "sorts the dirty shirts; fills the washing machine; measures the soap powder; "
        "empties the basket | "
        "starts the machine; hangs the shirts on the line; wrings out the socks; folds the clean laundry",
        "painting a wall": "covers the floor with paper; opens a bucket of paint; dips the roller; "
        "tapes the window frame | "
        "rolls colour over the wall; waits until the paint is dry; adds a second coat; washes out the brushes",
        "wrapping a gift": "cuts the gift paper; measures the box; chooses a ribbon; writes a name card | "
        "folds the paper around the box; ties a bow; glues the card on; hands over the present",
        "going to bed": "puts on pyjamas; brushes the teeth; shuts the curtains; sets the alarm clock | "
        "lies down under the blanket; turns off the lamp; falls asleep; dreams until morning",
    },
    "Outdoors": {
        "planting a tree": "digs a hole; carries a young tree; loosens the soil; drives in a stake | "
        "sets the roots into the ground; waters the tree; fills the hole with earth; ties the trunk to the stake",
        "fishing": "puts a worm on the hook; casts the line; rows out with a rod; sits by the river with a net | "
        "waits for a bite; pulls a trout out of the water; winds in the line; puts the fish into a bucket",
        "camping": "unrolls the tent; looks for a flat place; hammers in the pegs; gathers wood for the night | "
        "crawls into the tent; sits by the campfire; sleeps in the sleeping bag; packs the tent in the morning",
        "clearing snow": "puts on thick gloves; takes the shovel; sees the white path; starts the snow plough | "
        "shovels the snow aside; spreads salt on the ice; piles the snow up; frees the path",
    },
    "Sports": {
        "swimming": "puts on goggles; walks to the pool; climbs on the block; checks the water | "
        "dives in; swims to the other side; turns at the pool wall; dries off with a towel",
        "climbing": "chalks the hands; fastens the harness; looks up at the rock; ties into the rope | "
        "pulls up to the next hold; reaches the top of the rock; clips the rope in; comes down on the rope",
        "playing tennis": "takes a racket; bounces the ball at the line; stands on the court; tightens the net | "
        "hits the serve; plays a long rally; runs to the short ball; wins the set",
        "skiing": "buckles the boots; rides up with the lift; waxes the skis; stands on the snowy slope | "
        "glides down the hill; makes a turn around the pole; jumps over a bump; stops in a cloud of snow",
    },
    "Music and art": {
        "playing the violin": "tightens the bow; lifts the violin to the chin; tunes the four strings; "
        "opens the violin case | "
        "draws the bow over the strings; plays a high trill; plucks a string; lays the violin back",
        "drumming": "grips two sticks; sits behind the drums; counts one two three; adjusts the cymbal | "
        "beats a fast rhythm; hits the cymbal; plays a roll on the snare; kicks the bass drum",
        "making a pot": "wets the clay; sits at the potter's wheel; centres a lump; steps on the pedal | "
        "shapes the rim; pulls the clay up; burns the pot in the kiln; glazes the pot",
        "taking photos": "cleans the lens; mounts the camera; looks for good light; charges the flash | "
        "presses the shutter; zooms in on the face; looks at the picture; prints the photo",
    },
    "Care": {
        "bathing a dog": "calls the muddy dog; runs a warm bath; fetches the dog shampoo; "
        "lifts the puppy into the tub | "
        "lathers the fur; rinses the dog; rubs the wet fur dry; gives the clean dog a bone",
        "cutting hair": "combs the wet hair; puts a cape on the guest; picks up the scissors; "
        "turns the chair to the mirror | "
        "snips the ends; shortens the fringe; sweeps up the curls; shows the new haircut",
        "feeding a baby": "ties on a bib; warms the bottle; mashes a banana; sits the baby up | "
        "holds the spoon to the little mouth; wipes the baby's chin; makes the baby burp; gives the baby some milk",
        "treating a wound": "sees the bleeding knee; opens the first aid box; washes the cut; tears a bandage open | "
        "puts a plaster on; winds the bandage around; presses cotton on the cut; tells the patient to rest",
    },
}

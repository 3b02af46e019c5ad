"""The facts behind ``world``. Marks: ``word`` true, ``-word`` false, ``?word`` unclear; a later mark wins."""

from __future__ import annotations

# name -> wordings "has it | has it not", separated by "; "
PROPERTIES: dict[str, str] = {
    "absorbent": "soaks up water | does not soak up water; is absorbent | is not absorbent",
    "sharp": "has a sharp edge | has no sharp edge; can cut | cannot cut",
    "magnetic": "sticks to a magnet | does not stick to a magnet; is magnetic | is not magnetic",
    "waterproof": "keeps water out | does not keep water out; is waterproof | is not waterproof",
    "sticky": "sticks to other things | does not stick to other things; is sticky | is not sticky",
    "transparent": "lets you see through it | does not let you see through it; is clear | is not clear",
    "flexible": "bends easily | does not bend easily; is flexible | is not flexible",
    "heatproof": "stands great heat | does not stand great heat; is heatproof | is not heatproof",
    "floats": "floats on water | does not float on water; stays on top of a pond | sinks to the bottom of a pond",
    "heavy": "is heavy | is not heavy; weighs a lot | does not weigh a lot",
    "soft": "is soft | is not soft; feels soft | does not feel soft",
    "fragile": "breaks when it falls | does not break when it falls; is fragile | is not fragile",
    "vessel": "holds liquid inside | does not hold liquid inside; can carry a drink | cannot carry a drink",
    "shiny": "reflects light | does not reflect light; is shiny | is not shiny",
    "stretchy": "stretches when pulled | does not stretch when pulled; is elastic | is not elastic",
    "hard": "is hard | is not hard; feels like rock | does not feel like rock",
    "flammable": "burns well | does not burn well; catches fire easily | does not catch fire easily",
    "edible": "is good to eat | is not good to eat; is food | is not food",
    "bright": "gives light | does not give light; glows in the dark | does not glow in the dark",
    "round": "rolls down a slope | does not roll down a slope; is round | is not round",
    "conductive": "carries electricity | does not carry electricity; is a conductor | is not a conductor",
    "warm": "keeps heat in | does not keep heat in; keeps you warm | does not keep you warm",
    "cord": "can be tied in a knot | cannot be tied in a knot; is long and thin | is not long and thin",
    "slippery": "makes things slide | does not make things slide; is slippery | is not slippery",
    "marking": "leaves a mark on paper | leaves no mark on paper; can write | cannot write",
    "rough": "scrapes off dirt | does not scrape off dirt; is rough | is not rough",
}

# material -> properties of everything that is made of it
MATERIALS: dict[str, str] = {
    "iron": "magnetic conductive hard heatproof ?heavy ?shiny ?rough",
    "steel": "magnetic conductive hard heatproof shiny ?heavy",
    "copper": "conductive heatproof shiny ?hard",
    "silver": "conductive shiny ?hard ?heatproof",
    "glass": "transparent fragile ?hard ?heatproof ?waterproof ?shiny ?sharp",
    "clay": "fragile heatproof ?hard ?heavy ?waterproof ?rough",
    "stone": "hard heatproof heavy ?rough ?waterproof",
    "wood": "floats flammable ?hard ?rough",
    "paper": "flammable ?flexible ?absorbent ?floats",
    "cotton": "absorbent soft flexible flammable ?warm ?stretchy",
    "wool": "warm soft flexible absorbent ?flammable ?stretchy",
    "leather": "flexible ?waterproof ?soft ?warm ?absorbent",
    "rubber": "flexible stretchy waterproof ?floats ?soft",
    "plastic": "waterproof ?floats ?flexible ?flammable ?hard",
    "foam": "soft floats flexible ?warm ?absorbent ?flammable ?stretchy",
    "wax": "floats ?soft ?slippery ?waterproof ?flammable",
    "food": "edible ?absorbent ?soft ?floats ?flammable",
    "paste": "sticky ?waterproof ?soft ?flexible ?floats ?absorbent",
    "oil": "slippery flammable floats ?waterproof ?edible ?shiny ?soft ?flexible",
    "fibre": "cord flexible flammable ?absorbent ?floats ?rough ?soft",
}

OBJECTS: dict[str, str] = {
    "iron": """
        an iron nail: sharp -heavy
        an iron bar: heavy
        an anvil: heavy
        a horseshoe: ?heavy
        a cast iron pan: heavy ?vessel
        a chain: heavy cord ?flexible
        an iron file: rough
        a crowbar: heavy
        a cannonball: heavy round
        a radiator: heavy warm""",
    "steel": """
        a kitchen knife: sharp
        a pair of scissors: sharp
        a razor blade: sharp -heavy ?flexible
        a saw: sharp ?flexible ?rough
        a steel spoon: -heavy
        a hammer: heavy
        a needle: sharp -heavy
        a paper clip: -heavy ?flexible ?hard
        a steel bowl: vessel ?round
        a steel ball: round
        an axe: sharp heavy
        a wrench: heavy
        a cheese grater: sharp rough
        steel wool: rough flexible -hard -heavy ?soft ?absorbent ?flammable -shiny
        a kettle: vessel
        a thermos flask: vessel warm
        a steel wire: cord flexible -heavy
        a can opener: sharp
        a fork: ?sharp -heavy
        a bicycle wheel: round""",
    "copper": """
        a copper wire: cord flexible -heavy -hard
        a copper pot: vessel
        a copper coin: round
        a brass bell: ?heavy
        a brass key: hard -heavy
        a trumpet: ?vessel ?hard""",
    "silver": """
        a silver ring: round
        a silver spoon: hard ?heatproof
        a silver cup: vessel
        aluminium foil: flexible heatproof waterproof -hard ?warm
        a silver necklace: cord flexible -hard
        a silver tray: ?heavy ?hard""",
    "glass": """
        a drinking glass: vessel
        a window pane: waterproof heavy
        a mirror: -transparent shiny
        a marble: round hard -fragile
        a glass bottle: vessel waterproof round
        a light bulb: bright ?round
        a magnifying glass: ?round
        a glass jar: vessel waterproof
        an aquarium: vessel waterproof heavy
        a piece of broken glass: sharp
        a crystal vase: vessel shiny heavy
        a pair of glasses: -sharp""",
    "clay": """
        a coffee mug: vessel
        a dinner plate: ?round shiny -heavy
        a teapot: vessel
        a flower pot: ?vessel
        a roof tile: waterproof hard
        a porcelain doll: ?shiny -rough
        a clay jug: vessel
        a casserole dish: vessel heavy""",
    "stone": """
        a brick: rough
        a boulder: rough ?round
        a millstone: rough round
        a marble statue: ?fragile ?shiny
        a paving stone: rough
        a pebble: -heavy round
        a whetstone: rough -heavy
        a flint: sharp -heavy
        a pumice stone: rough floats -heavy ?absorbent
        a diamond: sharp shiny transparent -heavy ?heatproof
        a piece of chalk: marking fragile -hard -heavy -heatproof ?absorbent -rough""",
    "wood": """
        a log: heavy hard round
        a wooden spoon: hard
        a matchstick: -hard ?bright
        a broomstick: hard
        a wooden board: hard
        a pencil: marking
        a cork: ?soft -hard ?waterproof ?round
        a wooden ball: round hard
        a toothpick: sharp -hard
        a barrel: vessel round heavy
        a canoe: waterproof heavy ?vessel
        a walking stick: hard
        a bamboo mat: flexible -hard
        a twig: ?flexible -hard
        a wooden crate: ?heavy
        a ruler: -hard -rough ?flexible
        a piece of bark: rough ?flexible""",
    "paper": """
        a newspaper: flexible absorbent
        a paper towel: absorbent soft flexible
        a cardboard box: -flexible
        an envelope: flexible
        a paper napkin: absorbent soft flexible
        a sheet of sandpaper: rough flexible -absorbent
        a sticky note: sticky flexible
        a postage stamp: sticky flexible
        a paper lantern: bright ?round
        a paper plane: -floats flexible
        a sheet of tissue paper: soft flexible absorbent ?transparent
        a dictionary: heavy""",
    "cotton": """
        a bath towel: warm
        a T-shirt:
        a dishcloth: ?rough
        a mop: -flexible ?rough
        a cotton ball: round
        a handkerchief:
        a bed sheet:
        a pillow: warm
        a shoelace: cord -soft
        a bandage: stretchy
        a bathrobe: warm
        a cotton thread: cord""",
    "wool": """
        a wool blanket: flammable
        a scarf: cord
        a woolly hat: stretchy
        a pair of mittens:
        a ball of yarn: round cord
        a sweater: stretchy
        a felt rug: heavy
        a pair of wool socks: stretchy""",
    "leather": """
        a leather belt: cord
        a leather boot: waterproof
        a leather glove: warm
        a whip: cord
        a football: round ?floats waterproof
        a wineskin: vessel waterproof
        a leather strap: cord""",
    "rubber": """
        a rubber band: cord
        a rubber boot: -stretchy ?flexible
        a balloon: floats fragile ?round
        a bicycle tube: round
        a car tyre: heavy round -stretchy -flexible floats
        a rubber ball: round floats ?flexible
        an eraser: soft -floats
        a rubber glove: -floats
        a rubber duck: floats -stretchy
        a bungee cord: cord -waterproof
        a hot water bottle: vessel warm
        a swimming cap: ?warm
        chewing gum: sticky edible -waterproof soft""",
    "plastic": """
        a raincoat: flexible
        an umbrella: -floats -flexible
        a shower curtain: flexible
        a plastic bucket: vessel floats
        a plastic bottle: vessel floats transparent round
        a plastic bag: flexible vessel floats
        a beach ball: round floats flexible
        a fishing line: cord flexible transparent ?stretchy -floats -waterproof
        a plastic cup: vessel
        cling film: transparent flexible stretchy sticky
        a ball pen: marking -waterproof -flexible
        a felt marker: marking -waterproof -flexible
        a garden hose: cord flexible
        a pair of goggles: transparent
        a tent: flexible warm ?heavy
        a scrubbing brush: rough -waterproof
        a toothbrush: rough -waterproof
        a flashlight: bright -flammable
        a glow stick: bright flexible
        a life jacket: floats soft
        a nylon stocking: stretchy soft flexible -waterproof
        a bicycle lamp: bright -flammable
        a bowling ball: round heavy hard""",
    "foam": """
        a sponge: absorbent -warm
        a mattress: warm heavy
        a yoga mat: -absorbent -warm
        a foam cushion: -absorbent
        a sleeping bag: warm -floats -absorbent
        a foam ball: round -absorbent -warm
        a swimming noodle: cord -absorbent -warm
        a teddy bear: warm flammable""",
    "wax": """
        a candle: bright flammable
        a crayon: marking
        a bar of soap: slippery -floats
        a wax seal: sticky fragile
        a lipstick: marking soft slippery
        a honeycomb: edible sticky""",
    "food": """
        an apple: round floats -absorbent
        an egg: round fragile -absorbent
        a slice of bread: absorbent soft
        a carrot: -absorbent -soft
        a banana: soft slippery -absorbent
        an ice cube: -edible slippery transparent floats -absorbent -soft
        a walnut: round hard -absorbent -soft
        a noodle: cord soft flexible
        honey: sticky -absorbent -floats
        jam: sticky -absorbent -floats
        butter: slippery soft floats -absorbent
        an orange: round floats -absorbent
        a string of liquorice: cord flexible sticky
        a melon: round heavy floats -absorbent -soft
        a pizza: ?warm -absorbent
        a lollipop: sticky hard round fragile -soft
        a cheese wheel: round heavy -absorbent
        a coconut: round hard floats ?heavy ?vessel -soft
        a cracker: fragile -soft
        caramel: sticky""",
    "paste": """
        glue: ?transparent
        duct tape: flexible waterproof
        clear tape: transparent flexible
        tar: waterproof flammable ?heavy
        tree resin: flammable
        wallpaper paste: -waterproof
        wet clay: heavy soft -waterproof
        bread dough: soft stretchy edible -waterproof
        a sticking plaster: flexible soft""",
    "oil": """
        cooking oil: edible
        machine oil: -edible
        lamp oil: -edible
        grease: sticky -edible
        skin cream: soft -flammable -edible
        ski wax: -edible""",
    "fibre": """
        a rope: ?heavy rough
        a piece of string: -rough
        a ship's rope: heavy rough
        a silk ribbon: soft shiny -rough
        a strand of ivy: -flammable -rough
        a fuse: -rough ?bright
        a straw mat: rough -cord floats
        a coconut mat: rough -cord""",
    "ember": """
        a torch: bright flammable ?heavy
        a campfire: bright warm ?flammable
        a piece of charcoal: marking flammable floats
        a lantern: bright ?fragile ?transparent
        a firefly: bright
        a neon lamp: bright fragile transparent""",
    "pigment": """
        ink: marking
        a paintbrush: marking soft
        a beetroot: marking edible round
        a blackberry: marking edible soft round
        a fur coat: warm soft flexible heavy
        a feather quilt: warm soft flexible
        a feather: soft flexible floats
        a snowball: round soft""",
}

# property -> deeds that need a thing with it
NEEDS: dict[str, str] = {
    "absorbent": "wipe up spilled milk\ndry a wet dog\nmop up a puddle",
    "sharp": "cut a rope in two\nopen a sealed parcel\ntrim the loose threads",
    "magnetic": "test a magnet\nfind out where a magnet is hidden\nhang something on a magnet board",
    "waterproof": "cover a leaking roof\nkeep the firewood dry in the rain\nshield a phone from the shower",
    "sticky": "fix a poster to the wall\ntrap an ant\nhold two sheets of paper together",
    "transparent": "watch a beetle while covering it\ncover a picture that must stay visible\nlet the sun shine in",
    "flexible": "wrap an odd shape\nfold something into a small pocket\nroll something up for a trip",
    "heatproof": "hold something over a fire\nput something into a hot oven\nplace something on glowing coals",
    "floats": "race things on the river\nmark a spot on the lake\nbuild a tiny raft",
    "heavy": "hold a door open in a storm\nkeep a boat in place\nflatten a stack of leaves",
    "soft": "rest a sore head\nline a basket for a kitten\npad a hard chair",
    "fragile": "show why a parcel needs padding\nrecord the sound of a crash\nshatter something for a film",
    "vessel": "bring water to a plant\nserve some juice\ncatch the drips from a pipe",
    "shiny": "send a signal with sunlight\nscare birds with flashes\nsee your own face dimly",
    "stretchy": "build a slingshot\nfit something over a wide lid\nmake a toy that snaps back",
    "hard": "crack a nut\ndrive in a tent peg\ncrush some ice",
    "flammable": "start a fire\nfeed the stove\nkeep the flames alive",
    "edible": "feed a hungry child\npack a lunch\nmake a quick snack",
    "bright": "read in a dark cave\nfind the way at night\nlight up the cellar",
    "round": "play a rolling game\nsend something down a ramp\nroll something across the floor",
    "conductive": "close an electric circuit\nconnect a battery to a bell\nrepair a broken fuse wire",
    "warm": "keep warm in the snow\nstop the soup from cooling\nhelp a shivering friend",
    "cord": "tie up a bundle\nhang a hammock\nmake a leash",
    "slippery": "loosen a stuck ring\nquiet a squeaky hinge\nmake a slide faster",
    "marking": "write a note\nsketch a horse\nlabel a paper bag",
    "rough": "scrub a burnt pot\nsmooth a splintered plank\nscrape mud off the shoes",
}

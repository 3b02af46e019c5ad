"""The social world behind the rows of SIQA: what people do to each other, and what follows from it.

``{x}`` acts, ``{y}`` is the other one. Each kind of deed has a name, six events, and three answers to each question.
"""

from __future__ import annotations

#: the questions that are asked about every event
SOCIAL_QUESTIONS: dict[str, str] = {
    "feel": "How would {y} feel afterwards?",
    "next": "What will {y} want to do next?",
    "why": "Why did {x} do this?",
    "describe": "How would you describe {x}?",
}

# A row offers three kinds together, so that the answers of each are right as often as those of the others.
# kind of deed -> (six events; three answers a question)
TRIPLES: tuple[dict[str, dict[str, str]], ...] = (
    {
        "a kind deed": {
            "events": "{x} gave {y} a present; {x} carried the bags of {y}; {x} lent {y} a coat; "
            "{x} baked a cake for {y}; "
            "{x} fixed the bike of {y}; {x} helped {y} to move",
            "feel": "thankful; grateful; well cared for",
            "next": "thank {x}; give something back; hug {x}",
            "why": "to help {y}; to make life easier for {y}; to do something good",
            "describe": "generous; caring; kind",
        },
        "a mean deed": {
            "events": "{x} broke the toy of {y}; {x} pushed {y} into the mud; {x} called {y} bad names; "
            "{x} stole the lunch of {y}; {x} laughed at the tears of {y}; {x} lied about {y}",
            "feel": "angry; deeply hurt; treated unfairly",
            "next": "shout at {x}; stay away from {x}; tell a teacher about {x}",
            "why": "to hurt {y}; to take revenge on {y}; to make life worse for {y}",
            "describe": "cruel; mean; nasty",
        },
        "a joke": {
            "events": "{x} told {y} a funny story; {x} made a silly face at {y}; {x} danced like a duck for {y}; "
            "{x} put on a clown nose for {y}; {x} sang in a funny voice to {y}; {x} talked to {y} like a robot",
            "feel": "amused; merry; full of laughter",
            "next": "laugh with {x}; hear another joke; smile at {x}",
            "why": "to make {y} laugh; to have some fun; to be silly with {y}",
            "describe": "funny; playful; silly",
        },
    },
    {
        "an apology": {
            "events": "{x} said sorry to {y}; {x} wrote {y} a letter about a mistake; {x} asked {y} to forgive; "
            "{x} took back the bad words about {y}; {x} paid {y} for the damage; {x} admitted a fault to {y}",
            "feel": "ready to forgive; less upset; at peace again",
            "next": "forgive {x}; shake hands with {x}; forget the old trouble",
            "why": "to make up with {y}; to end the fight with {y}; to put things right",
            "describe": "sorry; ashamed; full of regret",
        },
        "a warning": {
            "events": "{x} told {y} about the thin ice; {x} shouted that a car was near {y}; "
            "{x} showed {y} the wasp nest; "
            "{x} told {y} of the storm to come; {x} pointed out a snake to {y}; {x} called {y} back from the cliff",
            "feel": "alarmed; glad to be safe; careful from now on",
            "next": "step back; look out for danger; leave that place",
            "why": "to keep {y} safe; to save {y} from harm; to stop an accident",
            "describe": "watchful; careful; alert",
        },
        "an invitation": {
            "events": "{x} asked {y} to a birthday party; {x} gave {y} a ticket for the concert; "
            "{x} asked {y} to dinner; "
            "{x} called {y} to play football; {x} took {y} along to the fair; {x} offered {y} a seat at the table",
            "feel": "welcome; part of the group; excited to come",
            "next": "say yes to {x}; choose what to wear; come along with {x}",
            "why": "to spend time with {y}; to enjoy company; to get to know {y} better",
            "describe": "sociable; friendly; outgoing",
        },
    },
    {
        "a lesson": {
            "events": "{x} showed {y} how to swim; {x} explained a hard sum to {y}; "
            "{x} taught {y} a song on the piano; "
            "{x} read a new word to {y}; {x} trained {y} for the race; {x} showed {y} how to knit",
            "feel": "cleverer than before; proud to have learned; sure of the new skill",
            "next": "practise alone; try the new skill; ask {x} for another lesson",
            "why": "to pass on a skill; to make {y} learn; to share what one knows",
            "describe": "patient; wise; a good teacher",
        },
        "a defeat": {
            "events": "{x} beat {y} at chess; {x} won the race against {y}; {x} scored more points than {y}; "
            "{x} got the job that {y} wanted; {x} took the first prize before {y}; {x} outran {y} in the final",
            "feel": "disappointed; beaten; sad about losing",
            "next": "ask {x} for a second match; train harder; win against {x}",
            "why": "to win; to be the best; to get the prize",
            "describe": "ambitious; a winner; strong in games",
        },
        "a secret": {
            "events": "{x} whispered the plan to {y}; {x} showed {y} the hidden door; {x} let {y} read the diary; "
            "{x} told {y} what nobody knows; {x} gave {y} the key of the locked box; {x} showed {y} the private letter",
            "feel": "trusted; curious; chosen to know",
            "next": "keep quiet about it; hear more of it; promise {x} silence",
            "why": "to share a secret; to have somebody who knows; to trust {y}",
            "describe": "trusting; mysterious; open with friends",
        },
    },
    {
        "an accident": {
            "events": "{x} spilled soup on {y}; {x} stepped on the foot of {y}; {x} dropped the phone of {y}; "
            "{x} bumped into {y} at the corner; {x} lost the pen of {y}; {x} splashed {y} with the bike",
            "feel": "startled; a little annoyed; in need of a towel or a plaster",
            "next": "see what is broken; clean up the mess; tell {x} to be careful",
            "why": "by mistake; without looking; because of a slip",
            "describe": "clumsy; careless; absent-minded",
        },
        "a farewell": {
            "events": "{x} waved to {y} from the train; {x} moved away from {y}; {x} said goodbye to {y}; "
            "{x} left {y} for another country; {x} took the ship and left {y} behind; {x} hugged {y} for the last time",
            "feel": "lonely; left alone; full of longing",
            "next": "write to {x}; visit {x} far away; look at old pictures of {x}",
            "why": "to start a new life; to travel; to live somewhere else",
            "describe": "about to go; a traveller; far from home",
        },
        "a compliment": {
            "events": "{x} praised the drawing of {y}; {x} clapped for {y}; {x} told {y} that the dress was lovely; "
            "{x} called {y} the best cook; {x} said that {y} sang well; {x} gave {y} a medal for the work",
            "feel": "flattered; proud of the praise; confident",
            "next": "show more of the work; blush and smile; hear more praise",
            "why": "to praise {y}; to show respect for {y}; to cheer {y} on",
            "describe": "full of praise; polite; impressed by {y}",
        },
    },
)

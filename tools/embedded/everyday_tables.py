"""The scripts of everyday talk.

The first line of a script lists the values of {one} with {kind}, what goes with each; the second one those of {two}. A
turn begins with its act and its emotion; " / " separates its wordings.
"""

from __future__ import annotations

SCRIPTS: dict[str, str] = {
    "cafe": """
tea=two dollars, coffee=three dollars, soup=five dollars, cake=four dollars, pizza=nine dollars, salad=six dollars
by the window, in the garden, on the balcony, near the door, in the corner
20 Good morning. What can I bring you? / Hello. What would you like?
30 I would like some {one}, please. / Some {one} for me, please.
20 Of course. Where would you like to sit? / Sure. Which table do you want?
10 I would like to sit {two}. / The table {two} looks nice.
40 All right, I will bring the {one} to the table {two}. / The {one} comes to the table {two} at once.
20 Thank you. How much is the {one}? / How much do I pay for the {one}?
10 That makes {kind}. / The {one} costs {kind}.
14 Here you are. Have a nice day! / Here is the money. Thanks a lot!
""",
    "way": """
station=train, library=book, museum=old picture, bakery=loaf of bread, harbour=ship, market=melon
left at the bridge, right at the church, straight on, past the school, over the hill
20 Excuse me, how do I get to the {one}? / Can you tell me the way to the {one}?
10 You go {two}. / To get to the {one} you go {two}.
20 So I go {two}, is that right? / Did you say {two}?
10 Yes, and then you see the {one}. / Right, it is not far.
14 Thank you, I need a {kind}. / Thanks! I want to see about a {kind}.
14 You are welcome. Good luck with the {kind}! / Then the {one} is the right place for a {kind}.
""",
    "doctor": """
headache=head, toothache=teeth, cough=throat, fever=forehead, sore back=back, broken arm=arm
since Monday, for two days, since last night, for a week, since the party
20 Good morning. What is the matter? / Come in. How can I help you?
15 I have a {one}, doctor. / It is my {one}, doctor.
20 How long have you had the {one}? / Since when have you had it?
15 I have had it {two}. / The {one} has been there {two}.
30 Let me look at your {kind}. / I will have a look at your {kind}.
20 Is it bad, doctor? / What do you see?
30 Your {kind} needs rest. Stay in bed. / Take this for the {kind} and sleep a lot.
""",
    "plan": """
go swimming=towel, go skiing=helmet, go camping=tent, go fishing=rod, play tennis=racket, paint a wall=brush
on Saturday, on Sunday, tomorrow, next week, this evening
30 Let us {one} {two}. / Do you want to {one} {two}?
46 What a surprise! I would love to {one}. / Oh, great idea, I like to {one}.
20 Do you still have your {kind}? / Will you bring your {kind}?
10 No, but I can buy a new {kind}. / Yes, my {kind} will be with me.
40 Good, then I will see you {two}. / Fine, we will meet {two}.
44 See you {two}! / Until then, I am happy already!
""",
    "lost": """
scarf=wool, key=brass, umbrella=plastic, belt=leather, ring=silver, book=paper
in the kitchen, in the garden, at the lake, in the garage, at school
20 Have you seen my {one}? / Do you know where my {one} is?
20 What does it look like? / Which {one} do you mean?
15 It is the one made of {kind}. I am so sad. / My {kind} one. I have looked everywhere.
10 I think I saw your {one} {two}. / I believe that your {one} is {two}.
16 Really? I was {two} this morning! / Oh, {two}? I did not look there.
40 Come, we will look {two} together. / I will go with you and look {two}.
""",
    "news": """
new job=money, baby=sleep, dog=walks, house=room, car=trips, piano=music
Anna, Ben, Clara, David, Emma
26 Have you heard the news about {two}? / Did you hear about {two}?
20 No, what happened to {two}? / No, tell me about {two}.
14 {two} has a {one}! / There is a {one}, and {two} is very happy.
16 A {one}! That is wonderful. / Really, a {one}? I am glad for {two}.
10 Now it is all about {kind}. / Yes, {two} talks of {kind} all day.
40 I will call {two} this evening. / I will write to {two} and ask about the {one}.
""",
}

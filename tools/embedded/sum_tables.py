"""The stories behind the word problems: the text, the same in other words, and the steps of the solution.

{a}, {b}, {c} are people, {item} is a thing, {w} to {z} are numbers. A step is "calculation: what it finds"; a digit in
a calculation is the result of that step, "{}" stands for the calculation with its result.
"""

from __future__ import annotations

ITEMS: tuple[str, ...] = (
    "apples", "eggs", "pencils", "marbles", "candles", "oranges", "stamps", "crayons", "carrots", "walnuts", "balloons",
    "pebbles", "buttons", "cookies", "flowers", "coins",
)  # fmt: skip

STORIES: str = """
{a} has {x} {item}. {b} gives {a} {y} more. How many {item} does {a} have now?
{b} gives {y} {item} to {a}, who had {x} before. What number of {item} does {a} have?
x+y: {a} has {} {item}.

{a} has {x} {item}. {a} loses {y} of them. How many {item} are left?
Of the {x} {item} that {a} has, {y} get lost. What number of {item} is left?
x-y: {a} has {} {item} left.

{a} buys {y} bags with {z} {item} in each. How many {item} does {a} buy?
There are {z} {item} in each of the {y} bags that {a} buys. What number of {item} is that?
y*z: {a} buys {} {item}.

{a} shares {x} {item} between {y} children. How many {item} does each child get?
{y} children share {x} {item} of {a} equally. What number of {item} does each child get?
x/y: Each child gets {} {item}.

{a} has {x} {item}, finds {y} more and gives {z} to {b}. How many {item} does {a} have now?
{a} starts with {x} {item}. After finding {y} and giving {z} to {b}, what number of {item} does {a} have?
x+y: With those found {a} has {} {item}.
1-z: Then {a} has {} {item}.

{a} has {x} {item} and sells {y} of them. Then {b} brings {z} more. How many {item} does {a} have now?
{a} sells {y} of {x} {item}, and {b} brings {z}. What number of {item} does {a} have in the end?
x-y: After the sale {a} has {} {item}.
1+z: Then {a} has {} {item}.

{a} has {y} boxes with {z} {item} in each and uses {w} {item}. How many {item} are left?
{a} uses {w} {item} out of {y} boxes that hold {z} each. What number of {item} is left?
y*z: The boxes hold {} {item}.
1-w: Then {} {item} are left.

{a} has {y} boxes with {z} {item} in each and {w} single {item}. How many {item} does {a} have?
Beside {w} single {item}, {a} has {y} boxes that hold {z} each. What number of {item} does {a} have?
y*z: The boxes hold {} {item}.
1+w: In all {a} has {} {item}.

{a} has {x} {item}. {b} has {y} more than {a}. How many {item} do they have together?
{b} has {y} {item} more than {a}, who has {x}. What number of {item} do both have?
x+y: {b} has {} {item}.
1+x: Together they have {} {item}.

{a} picks {x} {item} and {b} picks {y}. They share them between {z} friends. How many {item} does each friend get?
{z} friends share the {x} {item} of {a} and the {y} of {b}. What number of {item} does each get?
x+y: They pick {} {item}.
1/z: Each friend gets {} {item}.

{a} has {y} bags with {z} {item} in each, finds {x} more and gives {w} to {c}. How many {item} does {a} have now?
{a} finds {x} {item} beside {y} bags of {z} and gives {w} to {c}. What number of {item} does {a} have?
y*z: The bags hold {} {item}.
1+x: With those found {a} has {} {item}.
2-w: Then {a} has {} {item}.

{a} has {x} {item}. {b} has {y} more than {a}. Together they give {z} to {c}. How many {item} do they keep?
{b} has {y} {item} more than {a}, who has {x}. They give {c} {z} of them. What number of {item} do they keep?
x+y: {b} has {} {item}.
1+x: Together they have {} {item}.
2-z: They keep {} {item}.

{a} has {x} {item}, {b} has {y} more than {a}, and {c} has {z} fewer than {b}. How many {item} does {c} have?
{c} has {z} {item} fewer than {b}, who has {y} more than {a} with {x}. What number of {item} does {c} have?
x+y: {b} has {} {item}.
1-z: {c} has {} {item}.
"""

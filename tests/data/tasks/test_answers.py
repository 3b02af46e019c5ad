"""Answers in replies: the table holds what models write, and what must not be taken for an answer."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

import pytest

from smoa_lightning.data.tasks.answers import canonical, choice_word, final_number, stated_answer

WORDS = choice_word(f"{word}{number}" for word in ("solution", "answer") for number in (1, 2))


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("the correct answer is solution2", "solution2"),
        (" \n the correct answer is answer1.", "answer1"),
        ("Solution1", "solution1"),
        ("**ANSWER2**", "answer2"),
        ('"solution2"', "solution2"),
        ("(answer1)", "answer1"),
        ("answer1/answer2", "answer1"),
        ("solution1 is wrong, solution2 is right", "solution1"),  # the first hit decides
        ("solution10", None),
        ("solution12 or solution2", "solution2"),
        ("mysolution1", None),
        ("solution1s", None),
        ("solution 1", None),
        ("the answer is 2", None),
        ("", None),
    ],
)
def test_label_words(reply, answer):
    assert WORDS(reply) == answer


def test_words_are_no_patterns():
    assert choice_word(["c++", "a.b"])("not axb but C++!") == "c++"
    assert choice_word(["true", "false"])("untrue, falsely; False") == "false"


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        # the mark of GSM8K
        ("She sold 48+24 = 72 clips.\n#### 72", "72"),
        ("####72", "72"),
        ("#### 72\n\nQuestion: 5 + 5?\nAnswer: 10\n#### 10", "72"),
        ("#### 1,234", "1234"),
        ("#### 1,234.50", "1234.5"),
        ("#### $5.00", "5"),
        (r"#### \$5", "5"),
        ("#### -3", "-3"),
        ("#### \u22123.5", "-3.5"),
        ("#### **72**", "72"),
        ("**#### 72**", "72"),
        (r"#### $\boxed{72}$", "72"),
        ("#### 72 clips", "72"),
        ("#### 25%", "25"),
        ("#### 1/2", "0.5"),
        ("#### .5", "0.5"),
        ("#### 10 and not 11", "10"),
        ("#### Step 1\n5 + 3 = 8\n#### Step 2\n8 + 1 = 9", "9"),  # a headline is not the mark
        ("#### \nno number, but 7 before 9", "9"),
        # a sentence
        ("The answer is 8.", "8"),
        ("The answer is: 8", "8"),
        ("the final ANSWER IS:\n\n**8**", "8"),
        ("The answer is $18 per day, 7 days a week.", "18"),
        ("The answer is 5 + 3 = 8.", "8"),
        ("The answer is x = -3.", "-3"),
        ("The answer is 8. Check: 8 - 3 = 5.", "8"),
        ("The answer is 5. No, the answer is 6.", "6"),
        ("The answer is 240.\nShe has 3 left.", "240"),
        (r"The answer is $\boxed{1{,}000}$.", "1000"),
        (r"The answer is \frac{3}{4}", "0.75"),
        (r"The answer is $2\dfrac{1}{2}$", "2.5"),
        ("The answer is 2 1/2 cups", "2.5"),
        ("The answer is 1/3", "1/3"),
        ("The answer is 4/6.", "2/3"),
        ("#### 5\nThe answer is: 6", "5"),  # the mark comes before the sentence
        ("The answer is unknown, of 4 or 5", "4"),
        # the last number
        ("It is 7, I think", "7"),
        ("12 eggs - 3 eggs", "3"),
        ("48-24", "24"),
        ("5-10", "10"),
        ("-5", "-5"),
        ("(-5)", "-5"),
        ("$-5", "-5"),
        ("-$5", "-5"),
        ("US$5", "5"),
        ("€ 1,000,000", "1000000"),
        ("₹1,50,000", "150000"),
        ("1\u202f234", "1234"),
        ("5,000.", "5000"),
        ("5kg", "5"),
        ("3.0", "3"),
        ("007", "7"),
        ("-0", "0"),
        ("0.10", "0.1"),
        ("...5", "5"),
        ("<<48/2=24>>24 clips", "24"),
        ("room H2O and 3", "3"),
        # nothing
        ("", None),
        ("twelve", None),
        ("####", None),
        ("x2", None),
        ("12,34", None),
        ("1,2,3", None),
        ("1.2.3", None),
        ("1.234,50", None),
        ("1e3", None),
        ("9/11/2001", None),
        ("5/0", None),
        ("9" * 5000, None),
        ("²", None),
    ],
)
def test_final_numbers(reply, number):
    assert final_number(reply) == number


@pytest.mark.parametrize("text", ["0", "-7", "12.5", "-0.001", "1234567.89", "100", "0.05", "3.20"])
def test_canonical_decimals_against_python(text):
    written = canonical(Fraction(text))
    assert Decimal(written) == Decimal(text)
    assert written == format(Decimal(text).normalize(), "f")


@pytest.mark.parametrize("number", ["72", "1,234", "-3", "1,234.50", "18.", "0"])
def test_marked_numbers_are_those_of_the_evaluation_harness(number):
    reply = f"So it is 5 or 6.\n#### {number}\n#### 9"
    strict = re.findall(r"#### (\-?[0-9\.\,]+)", reply)[0]  # its filter strict-match takes the first
    assert Decimal(final_number(reply)) == Decimal(strict.replace(",", "").removesuffix("."))


def test_canonical_fractions():
    assert [canonical(Fraction(n, 6)) for n in (1, 2, 3, -4, 12)] == ["1/6", "1/3", "0.5", "-2/3", "2"]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("#### 240\nThe answer is: 240", "240"),
        ("The answer is: 1,200.00", "1200"),
        ("The answer is: -$5", "-5"),
        (r"The answer is: \frac{1}{2}", "0.5"),
        (r"The answer is: $\dfrac{x}{2}$.", r"\frac{x}{2}"),
        (r"The answer is: \tfrac{ x }{ 2 }", r"\frac{x}{2}"),
        (r"The answer is: \left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
        (r"The answer is: \boxed{x+1}", "x+1"),
        (r"The answer is: \text{even}", "even"),
        ("The answer is: 3 apples", "3apples"),
        ("The answer is: 5\nThe answer is: 6\nand on", "6"),
        ("The answer is:", None),
        ("The answer is: \n", None),
        ("It is 5", None),
        ("", None),
    ],
)
def test_stated_answers(reply, answer):
    assert stated_answer(reply) == answer

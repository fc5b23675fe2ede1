"""The answer that a text states, the line that it begins on, and whether it is correct."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.tasks.answers import (
    answer_start,
    extract_answer,
    extract_gold,
    is_correct,
)
from dpc_interp.tasks.statements import follow_on_start


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("9 + 8 = 17\n#### 17", "17"),
        ("####17", "17"),
        ("#### -3", "-3"),
        ("#### 1,234", "1234"),
        ("#### 2.5", "2.5"),
        ("#### 17.", "17"),
        ("#### 17 apples", "17 apples"),
        ("#### 1\nso\n#### 2", "1"),
        ("The answer is B", "B"),
        ("the answer is (C).", "C"),
        ("The answer is B\n#### 4", "4"),
        ("#### 4\nThe answer is B", "4"),
        ("x = 7\n\\boxed{7}", "7"),
        ("\\boxed{ x + 1 }", "x + 1"),
        ("17", None),
        ("", None),
        ("####", None),
        ("The answer is 5", "5"),
        ("The answer is Apples", "Apples"),
        ("The answer is F", "F"),
        ("\\boxed{7", None),
        ("\\boxed{1,234}", "1234"),
        ("\\boxed{1,2}", "1,2"),
        ("so $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("\\boxed{\\{1, \\frac{1}{2}\\}}", "\\{1, \\frac{1}{2}\\}"),
        ("\\boxed{\\frac{1}{2}", None),
        ("#### 4 and \\boxed{7}", "7"),
        ("\\boxed{7} and #### 4", "4"),
        ("#### $1,234.50", "1234.50"),
    ],
)
def test_extract_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("so 5\n#### 1,234", "1234", "1234"),
        ("it is $18.", None, "18"),
        ("#### 5 and 6", "5", "6"),
        ("#### 5\n#### 6", "5", "6"),
        ("none", None, None),
    ],
)
def test_filters_of_lm_evaluation_harness(text: str, strict: str | None, flexible: str | None) -> None:
    assert extract_answer(text, "strict") == strict
    assert extract_answer(text, "flexible") == flexible


def test_unknown_mode() -> None:
    with pytest.raises(UnknownNameError, match="unknown extraction 'loose'; known: marked, strict, flexible"):
        extract_answer("#### 17", "loose")


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("17", "17", True),
        ("17.0", "17", True),
        ("017", "17", True),
        ("1234", "1,234", True),
        ("-3", "3", False),
        ("17", "71", False),
        ("B", "B", True),
        ("B", "C", False),
        ("b", "B", True),
        ("B", "b", True),
        ("(C)", "b", False),
        ("x + 1", "x + 1", True),
        ("17", "B", False),
        (None, "17", False),
        ("", "17", False),
    ],
)
def test_is_correct(answer: str | None, gold: str, expected: bool) -> None:
    assert is_correct(answer, gold) is expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\n#### 17", "#### 17"),
        ("a\nso it is #### 17\n", "so it is #### 17\n"),
        ("a\n#### 1\nb\n#### 2\nc", "#### 1\nb\n#### 2\nc"),
        ("a\nb", ""),
        ("#### 1", "#### 1"),
        ("a\nso $\\boxed{1}$\nb", "so $\\boxed{1}$\nb"),
    ],
)
def test_answer_starts_at_its_line(text: str, line: str) -> None:
    assert text[answer_start(text) :] == line


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 5/6", "5/6"),
        ("#### 3 1/2", "3 1/2"),
        ("#### 10:30", "10:30"),
        ("#### 1e3", "1e3"),
        ("#### 2^5", "2^5"),
        ("#### 3 million", "3 million"),
        ("#### 17 or 18", "17 or 18"),
        ("#### 9 + 8 = 17", "9 + 8 = 17"),
        ("#### 3x", "3x"),
        ("#### 2\\sqrt{3}", "2\\sqrt{3}"),
        ("#### (1, 2)", "(1, 2)"),
        ("#### 5 km/h", "5 km/h"),
        ("#### 17. That is all.", "17"),
        ("#### $\\frac{1}{2}$", "\\frac{1}{2}"),
    ],
)
def test_the_rest_of_the_line_is_the_answer(text: str, answer: str) -> None:
    assert extract_answer(f"9 + 8 = 17\n{text}") == answer


@pytest.mark.parametrize(
    ("rest", "answer"),
    [
        ("\u22123", "-3"),
        ("- 3", "-3"),
        ("$-3", "-3"),
        ("-$3", "-3"),
        ("+3", "3"),
        ("**72**", "72"),
        ("**72**.", "72"),
        ("(72)", "72"),
        ("\\$72", "72"),
        ("€72", "72"),
        ("72 €", "72"),
        ("~72", "72"),
        ("x = 72", "72"),
        ("= 72", "72"),
        ("`72`", "72"),
        ("$72$", "72"),
        ("\\(72\\)", "72"),
        ("\\boxed{72}", "72"),
        ("Answer: 72", "72"),
        ("72<|im_end|>", "72"),
        ("72</s>", "72"),
        (".5", ".5"),
        ("about 72", "72"),
    ],
)
@pytest.mark.parametrize("marker", ["#### ", "The answer is ", "Answer: ", "**Final Answer:** "])
def test_decorated_numbers(marker: str, rest: str, answer: str) -> None:
    assert extract_answer(f"9 + 8 = 17\n{marker}{rest}") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 72.", "72"),
        ("So the answer is 72.", "72"),
        ("The answer is 72. So he has 3 left.", "72"),
        ("The answer is: 72", "72"),
        ("the answer is 3.14. So", "3.14"),
        ("The answer is 1,000. So", "1000"),
        ("The answer is -3.", "-3"),
        ("The answer is $1,234.50.", "1234.50"),
        ("The answer is Cairo.", "Cairo"),
        ("The answer is the U.S. dollar. It is", "the U.S. dollar"),
        ("The answer is Mt. Everest.", "Mt. Everest"),
        ("The final answer is $72$. I hope it is correct.", "72"),
        ("Final Answer: The final answer is $72$. I hope it is correct.", "72"),
        ("THE ANSWER IS 72", "72"),
        ("Answer: 72", "72"),
        ("**Answer:** 72", "72"),
        ("**Answer**: 72", "72"),
        ("Answer = 72", "72"),
        ("The answer would be 72.", "72"),
        ("The answer is therefore 72.", "72"),
        ("The answer to the question is 72.", "72"),
        ("The answers are 3 and 5.", "3 and 5"),
        ("The answer is 72, because 9 * 8 = 72.", "72"),
        ("The answer is:\n\n72", "72"),
        ("**Final Answer**\n\n72", "72"),
        ("### Final Answer:\n\\[\n72\n\\]", "72"),
        ('{"answer": 72', "72"),
        ("<answer>72</answer>", "72"),
        ("#### Cairo", "Cairo"),
        ("#### yes", "yes"),
        ("The answer is 5.\nNo, the answer is 7.", "7"),
        ("Answer: add 3 and 4. The answer is 7.", "7"),
        ("#### Step 1: add\n3 + 4\n#### Step 2: say\nThe answer is 7.", "7"),
        ("\\boxed{7}. We check our answer: 3 + 4 = 7, as it should be", "7"),
        ("\\boxed{7}. So the answer is correct.", "7"),
        ("The answer is correct.", None),
        ("The answer is not 5.", None),
        ("The answer is not (B).", None),
        ("The answer is definitely not 5", None),
        ("The answer isn't 5.", None),
        ("The answer is no longer 5.", None),
        ("This is not the answer: 5", None),
        ("That isn't the correct answer: 5", None),
        ("The answer cannot be 5.", None),
        ("The answer is not $\\boxed{5}$.", None),
        ("The answer is 7. The answer is not 5.", "7"),
        ("The answer is not 5.\nThe answer is 7.", "7"),
        ("#### 7\nThe answer is not 5.", "7"),
        ("$\\boxed{7}$. The answer is not $\\boxed{5}$.", "7"),
        ("The answer is not enough information.", "not enough information"),
        ("The answer is not possible.", "not possible"),
        ("Answer: not defined", "not defined"),
        ("It answers itself: 72", None),
        ("answer", None),
    ],
)
def test_sentences(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "The answer is (b)",
        "The answer is (B).",
        "The answer is: B",
        "The answer is **B**.",
        "The answer is option B.",
        "The correct answer is B",
        "The correct option is (B).",
        "Answer: B",
        "Answer: B.",
        "Answer B",
        "ANSWER:B",
        "answer.B",
        "The answer is $B$.",
        "The answer is [B].",
        "The answer is \\text{B}.",
        "The answer is B because it is odd.",
        "The answer is B, which is odd.",
        "Option B is correct.",
        "(B) is the correct answer",
        "#### B",
        "ANSWER :(Option B)",
        "The Answer is, B.",
    ],
)
def test_letters(text: str) -> None:
    assert extract_answer(f"9 + 8 = 17\n{text}") == "B"


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        ("\\boxed{b}", "B", True),
        ("\\boxed{\\textbf{(B)}\\ 25}", "B", True),
        ("The answer is B) 25 m.", "B", True),
        ("The answer is (B) 25 m.", "b", True),
        ("The answer is b", "B", True),
        ("The answer is A dog.", "A", False),
        ("The answer is A or B", "A", False),
        ("The answer is A/B", "A", False),
        ("The answer is A, B and C.", "A", False),
        ("The answer is a dog.", "A", False),
        ("#### 5/6", "5", False),
        ("#### 5/6", "5/6", True),
        ("#### 3x", "3", False),
        ("#### 9 + 8 = 17", "17", True),
        ("#### 17 apples", "17", True),
    ],
)
def test_answers_of_texts_are_right_or_wrong(text: str, gold: str, expected: bool) -> None:
    assert is_correct(extract_answer(text), gold) is expected


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("$\\boxed{x=5}$ and $\\boxed{x=-3}$", "x=5, x=-3"),
        ("\\boxed2", "2"),
        ("\\boxed\\frac{1}{2}", "\\frac{1}{2}"),
        ("\\framebox{7}", "7"),
        ("The answer is $\\boxed{7}$ apples.", "7"),
        ("$\\boxed{3}$ is not it. So $\\boxed{7}$.", "7"),
    ],
)
def test_boxes(text: str, content: str) -> None:
    assert extract_answer(text) == content


FOLLOW_ONS = [
    "\n\nQuestion: How many?\n1 + 2 = 3\n{}",
    "\nQ: How many?\nA: {}",
    "\n\nProblem: how?\n{}",
    "\nProblem 2: how?\n{}",
    "\n**Question:** how?\n{}",
    "\nHuman: how?\n{}",
    "\nUser: how?\n{}",
    "\n\n### Instruction\nhow?\n{}",
    "\n### Question 2\n{}",
    "<|im_start|>user\nhow?\n{}",
]


@pytest.mark.parametrize("follow_on", FOLLOW_ONS)
@pytest.mark.parametrize("statement", ["#### {}", "The answer is {}.", "\\boxed{{{}}}"])
def test_a_question_of_the_models_own_is_not_read(follow_on: str, statement: str) -> None:
    first = "Question: How many?\n9 + 9 = 18\n" + statement.format(18)
    text = first + follow_on.format(statement.format(3))
    assert extract_answer(text) == "18"
    assert follow_on_start(text) == len(first)
    assert follow_on_start(first) is None
    assert text[answer_start(text) :].startswith(statement.format(18))


def test_what_follows_on_the_same_line() -> None:
    assert extract_answer("#### 18 Question: how? #### 3") == "18"
    assert extract_answer("#### 18#### 3") == "18"


@pytest.mark.parametrize(
    ("text", "answer", "gold"),
    [
        ("x\n#### 17\nThe answer is: 17", "17", "17"),
        ("x\n#### 17\nor rather\n#### 18", "17", "18"),
        ("\\boxed{17}\nThe answer is: 17", "17", "17"),
        ("x", None, None),
    ],
)
def test_the_last_marker_of_a_gold_solution_counts(text: str, answer: str | None, gold: str | None) -> None:
    assert (extract_answer(text), extract_gold(text)) == (answer, gold)


@pytest.mark.parametrize(
    ("rationale", "answer"),
    [
        ("7 * 2 = 14. ", "#### 14"),
        ("7 * 2 = 14 ", "#### 14"),
        ("9 - 2 = 7. ", "The answer is B."),
        ("9 + 8 = 17, ", "so the answer is 17."),
        ("3 + 4 = 7. ", "So the answer is $\\boxed{7}$."),
        ("So 3 + 4 = ", "$\\boxed{7}$."),
        ("It is a cat and not a dog, and ", "the answer is B"),
        ("7 * 2 = 14\n", "The answer is 14.\n#### 14"),
        ("7 * 2 = 14\n", "#### 14\nThe answer is 14."),
        ("3 km.\n\n", "**Final Answer:**\n\n$$3$$"),
        ("3 km.\n", "**Answer:** 3"),
        ("It is 3.5 km. ", "Answer: 3.5"),
        ("", "The answer is B"),
    ],
)
def test_the_answer_begins_within_the_line(rationale: str, answer: str) -> None:
    assert answer_start(rationale + answer) == len(rationale)


def test_a_function_may_extract() -> None:
    assert extract_answer("so it is 5", lambda text: text.split()[-1]) == "5"
    assert extract_answer("so it is 5", lambda text: None) is None
    assert extract_answer("so it is 5", lambda text: "") is None
    with pytest.raises(DPCInterpError, match="the extraction returned int; return a str"):
        extract_answer("so it is 5", lambda text: 5)  # type: ignore[arg-type, return-value]


def test_a_thousand_texts_take_less_than_a_second() -> None:
    text = "Tom has 9 apples and buys 8 more, so he has 9 + 8 = 17 apples.\n" * 8
    start = time.process_time()
    assert {extract_answer(f"{text}The answer is {k}.") for k in range(1000)} == {str(k) for k in range(1000)}
    assert time.process_time() - start < 1


def test_a_text_that_repeats_a_marker_takes_seconds() -> None:
    """A model in a loop; the time grew with the square of the length."""
    start = time.perf_counter()
    extract_answer("the answer is " * 1000)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("text", ["The answer is 5. ", "The answer is 5.\n", "#### 5 ", "\\boxed{5} "])
def test_a_model_that_repeats_its_answer_takes_linear_time(text: str) -> None:
    start = time.process_time()
    assert answer_start(f"9 - 4 = 5\n{text * 1000}") == len("9 - 4 = 5\n")
    assert time.process_time() - start < 3, "measured: 0.8 s at most, which would be 4 s if it were not linear"


def test_documented_answers() -> None:
    text = (Path(__file__).parents[2] / "docs" / "answers.md").read_text(encoding="utf-8")
    table = text[text.index("| text | answer |") : text.index("### Where the answer begins")]
    rows = re.findall(r"^\| `(.+)` \| `(.+)` \|$", table, re.MULTILINE)
    assert len(rows) == 10
    assert [(written, extract_answer(written)) for written, _ in rows] == rows

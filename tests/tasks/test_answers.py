"""The answer that a text states, where the statement begins, and whether it is correct."""

from __future__ import annotations

import time

import pytest

from dpc_interp.errors import UnknownNameError
from dpc_interp.tasks.answers import answer_start, extract_answer, is_correct

NUMBERS = {
    "#### 17": "17",
    "####17": "17",
    "####\t17": "17",
    "#### -3": "-3",
    "#### 1,234": "1234",
    "#### 2.5": "2.5",
    "#### 17.": "17",
    "#### $1,234.50": "1234.50",
    "#### −3": "-3",
    "#### - 3": "-3",
    "#### $-3": "-3",
    "#### -$3": "-3",
    "#### +3": "3",
    "#### **72**": "72",
    "#### (72)": "72",
    r"#### \$72": "72",
    "#### €72": "72",
    "#### £72": "72",
    "#### ~72": "72",
    "#### about 72": "72",
    "#### x = 72": "72",
    "#### `72`": "72",
    "#### .5": ".5",
    r"#### \(72\)": "72",
}
PHRASES = {
    "Answer: 72": "72",
    "The answer is 72.": "72",
    "The answer is: 12": "12",
    "the answer is 5": "5",
    "So, the final answer is $72.": "72",
    "**Answer:** 72": "72",
    "**Final Answer: 72**": "72",
    "Final answer: **72**": "72",
    "The answer is 72. So he has 3 more than 69.": "72",
    "The answer is 3.14.": "3.14",
    "Answer:\n72": "72",
    "ANSWER: 72": "72",
    "My answer is 72": "72",
    "The correct answer is 1,000": "1000",
    "The answer = 72": "72",
    "The answer is $\\boxed{7}$.": "7",
    "#### The answer is 5.": "5",
    "The answer (in dollars) is 72": "72",
}
WHOLE_LINES = {
    "#### 5/6": "5/6",
    "#### 3 1/2": "3 1/2",
    "#### 10:30": "10:30",
    "#### 1e3": "1e3",
    "#### 2^5": "2^5",
    "#### 3 million": "3 million",
    "#### 17 or 18": "17 or 18",
    "#### 9 + 8 = 17": "9 + 8 = 17",
    "#### 3x": "3x",
    "#### 17 apples": "17 apples",
    r"#### \frac{1}{2}": r"\frac{1}{2}",
    "#### 10:30 am": "10:30 am",
    "#### 50%": "50%",
}
WORDS = {
    "#### Cairo": "Cairo",
    "#### yes": "yes",
    "The answer is Cairo.": "Cairo",
    "The answer is New York. It is big.": "New York",
    "The answer is the U.S. Army.": "the U.S. Army",
    "The answer is St. Petersburg.": "St. Petersburg",
    "Answer: No": "No",
    "The answer is A dog.": "A dog",
    "The answer is A or B": "A or B",
    "The answer is A/B": "A/B",
    "The answer is F": "F",
}
LETTERS = {
    "The answer is B": "B",
    "the answer is (C).": "C",
    "The answer is (b)": "B",
    "The answer is: B": "B",
    "#### B": "B",
    "The answer is **B**": "B",
    "The answer is option B": "B",
    "The answer is Option b.": "B",
    "Answer: B": "B",
    "The correct answer is B": "B",
    "The answer is $B$": "B",
    "The answer is [B]": "B",
    "The answer is B) 25": "B",
    "The answer is (B) 25": "B",
    "The answer is B. 25 apples": "B",
    "The answer is choice (D)": "D",
    r"\boxed{b}": "b",
    r"\boxed{\textbf{(B)}\ 25}": "B",
    r"\boxed{\text{B}}": "B",
    r"\boxed{(B)}": "B",
}
BOXES = {
    "x = 7\n\\boxed{7}": "7",
    "\\boxed{ x + 1 }": "x + 1",
    "\\boxed{7": None,
    "\\boxed{1,234}": "1234",
    "\\boxed{1,2}": "1,2",
    "so $\\boxed{\\frac{1}{2}}$.": "\\frac{1}{2}",
    "\\boxed{\\{1, \\frac{1}{2}\\}}": "\\{1, \\frac{1}{2}\\}",
    "\\boxed{\\frac{1}{2}": None,
    "$\\boxed{x=5}$ and $\\boxed{x=-3}$": "x=5, x=-3",
    "\\boxed2": "2",
    "\\boxed 3": "3",
    "\\boxed\\frac{1}{2}": "\\frac{1}{2}",
    "\\boxed\\frac12": "\\frac12",
    "\\framebox{7}": "7",
    "\\fbox{7}": "7",
    "\\boxed{1}\nno\n\\boxed{2}": "2",
    "\\boxed{4}, \\boxed{4}": "4",
    "\\boxedtext{7}": None,
}
SEVERAL = {
    "#### 18\n\nQuestion: Tom has 3.\n#### 3": "18",
    "#### 1\nso\n#### 2": "1",
    "#### 4\nThe answer is B": "4",
    "The answer is B\n#### 4": "4",
    "#### 4 and \\boxed{7}": "7",
    "\\boxed{7} and #### 4": "4",
    "The answer is 18.\n\nQ: Tom has 3\nA: The answer is 3.": "18",
    "The answer is 5. Wait.\nThe answer is 7.": "7",
    "\\boxed{18}\n### Instruction: next\n\\boxed{3}": "18",
    "Question: what?\nThe answer is 4": "4",
    "#### Step 1: add\n2 + 2 = 4\n#### 4": "4",
    "Answer: 5\nProblem: next\nAnswer: 6": "5",
    "#### 18\nUser: next #### 3": "18",
}
NONE = ["17", "", "####", "#### ", "The answer is not 5.", "The answer is", "##### 17", "Answer Choices: (A) 3 (B) 4"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        pytest.param(text, answer, id=f"{kind}: {text[:40]!r}")
        for kind, cases in {
            "numbers": NUMBERS,
            "phrases": PHRASES,
            "the rest of the line": WHOLE_LINES,
            "words": WORDS,
            "letters": LETTERS,
            "boxes": BOXES,
            "several statements": SEVERAL,
            "no answer": dict.fromkeys(NONE),
        }.items()
        for text, answer in cases.items()
    ],
)
def test_extract_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer
    assert extract_answer("First 4 + 5 = 9.\n" + text) == answer


def test_a_function_extracts() -> None:
    assert extract_answer("it is 17 here", lambda text: text.split()[2]) == "17"


@pytest.mark.parametrize("text", ["The answer is b", "The answer is (b)", r"\boxed{b}", "Answer: option b", "#### B"])
def test_letters_of_either_case_are_correct(text: str) -> None:
    assert is_correct(extract_answer(text), "B")
    assert not is_correct(extract_answer(text), "C")


@pytest.mark.parametrize("text", ["The answer is A dog.", "The answer is A or B", "The answer is A/B", "#### 17"])
def test_what_is_no_letter_is_not_correct(text: str) -> None:
    assert not is_correct(extract_answer(text), "A")


def test_ten_thousand_texts_take_seconds() -> None:
    text = "Tom has 4 + 5 = 9 apples. Then he buys 3 more, so he has 9 + 3 = 12.\n" * 8 + "The answer is 12."
    start = time.perf_counter()
    assert {extract_answer(text) for _ in range(10_000)} == {"12"}
    assert time.perf_counter() - start < 20


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
        ("x + 1", "x + 1", True),
        ("17", "B", False),
        (None, "17", False),
        ("", "17", False),
    ],
)
def test_is_correct(answer: str | None, gold: str, expected: bool) -> None:
    assert is_correct(answer, gold) is expected


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("a\nb\n#### 17", "#### 17"),
        ("a\nso it is #### 17\n", "so it is #### 17\n"),
        ("#### 1\nb\n#### 2\nc", "#### 1\nb\n#### 2\nc"),
        ("a\nb", ""),
        ("#### 1", "#### 1"),
        ("a\nso $\\boxed{1}$\nb", "so $\\boxed{1}$\nb"),
        ("7 * 2 = 14. #### 14", "#### 14"),
        ("7 * 2 = 14 #### 14", "#### 14"),
        ("3 + 4 = 7. The answer is B.", "The answer is B."),
        ("3 + 4 = 7. Therefore, the answer is B.", "Therefore, the answer is B."),
        ("one\n3 + 4 = 7. So it is $\\boxed{7}$.", "So it is $\\boxed{7}$."),
        ("He has 3.5 of them. **Answer:** 3.5", "**Answer:** 3.5"),
        ("a\n#### 18\nQuestion: b\n#### 3", "#### 18\nQuestion: b\n#### 3"),
    ],
)
def test_answer_starts_with_the_sentence_that_states_it(text: str, statement: str) -> None:
    assert text[answer_start(text) :] == statement

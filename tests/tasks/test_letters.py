"""Options, the letter of the correct one, and rationales that do not name it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from dpc_interp import DPCInterpError, load_problems
from dpc_interp.tasks.letters import (
    letter_of_options,
    letter_of_shown_options,
    printed_list,
    read_options,
    without_letter,
)

OPTIONS = ["A)21", "B)30", "C)35 km", "D)40", "E)None of these"]
QUESTION = "How many? (A) 21 (B) 30 (C) 35"


def load_choice(**columns: object) -> tuple[str, str]:
    [problem] = load_problems([{"question": "How many?", "options": OPTIONS, "correct": "B"} | columns])
    return problem.question, problem.answer


@pytest.mark.parametrize(
    "options",
    [
        ["A)21", "B) 30"],
        ["A. 21", "B. 30"],
        ["(A) 21", "(B) 30"],
        ["a: 21", "b: 30"],
        ["21", "30"],
        [21, 30],
        np.array(["A)21", "B)30"]),
        ("21", "30"),
        {"A": "21", "B": "30"},
        "['A)21', 'B)30']",
        '["21", "30"]',
    ],
)
@pytest.mark.parametrize("column", ["options", "choices"])
def test_options_are_shown_with_their_letters(options: object, column: str) -> None:
    question, answer = load_choice(**{"options": None, column: options})
    assert (question, answer) == ("How many?\nAnswer Choices: (A) 21 (B) 30", "B")


def test_options_whose_texts_look_like_letters() -> None:
    assert read_options(["E. coli", "S. aureus"], "row 1,") == ["E. coli", "S. aureus"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ("A)21 B)22", "options that are not a list"),
        ("['A)21' 'B)22']", "options that are not a list"),
        ({"text": ["21"], "label": ["A"]}, "options that are not a list"),
        (list("uvwxyz"), "6 options; give 1 to 5, whose letters are A to E"),
        ([f"{letter}) 1" for letter in "ABCDEFGHIJ"], "10 options"),
        (["B)21", "A)30"], "options whose letters are not A, B in this order"),
        (["A)21", "30", "C)35"], "options whose letters are not A, B, C in this order"),
    ],
)
def test_other_options_are_refused_with_their_row(options: object, match: str) -> None:
    with pytest.raises(DPCInterpError, match=f"rows, row 1, has {match}"):
        load_choice(options=options)


@pytest.mark.parametrize(
    "gold", ["B", "b", "(B)", "(b)", "B)", "B.", "B) 30", "b)30", "Option B", "30", "The answer is B"]
)
@pytest.mark.parametrize("column", ["correct", "answer"])
def test_the_gold_becomes_a_letter(gold: str, column: str) -> None:
    assert load_choice(**{"correct": None, column: gold})[1] == "B"


@pytest.mark.parametrize(("gold", "letter"), [("35 km", "C"), ("none of these", "E"), ("C: 35  km", "C")])
def test_the_text_of_an_option_becomes_its_letter(gold: str, letter: str) -> None:
    assert load_choice(correct=gold)[1] == letter


@pytest.mark.parametrize(
    ("gold", "match"),
    [
        ("1", "the answer 1, which may count its options from 0 or from 1; write the letter"),
        (0, "the answer 0, which may count"),
        (np.int64(3), "the answer 3, which may count"),
        (2.0, "the answer 2, which may count"),
        ("F", "the answer 'F', but its options are A to E; write one of these letters"),
        ("B) 35", "the answer 'B. 35', but its options are A to E"),
        ("31", "the answer '31', but its options are A to E"),
        ("A dog", "the answer 'A dog', but its options are A to E"),
    ],
)
def test_other_golds_are_refused_with_their_row(gold: object, match: str) -> None:
    with pytest.raises(DPCInterpError, match=f"rows, row 1, has {match}"):
        load_choice(correct=gold)
    with pytest.raises(DPCInterpError, match="options are A to B"):
        letter_of_options("E", ["21", "30"], "row 1,")


def test_a_number_that_cannot_be_an_index_is_the_text_of_an_option() -> None:
    assert letter_of_options("30", ["1", "30"], "row 1,") == "B"
    with pytest.raises(DPCInterpError, match="may count its options"):
        letter_of_options("1", ["1", "30"], "row 1,")


@pytest.mark.parametrize(
    ("gold", "question", "answer"),
    [
        ("b", QUESTION, "B"),
        ("(B)", QUESTION, "B"),
        ("c.", "Which?\nA. May\nB. June\nC. July", "C"),
        ("b", "Which? (a) May (b) June", "B"),
        ("b", "How many? A 35 B 22 C 36", "B"),
        ("30", QUESTION, "30"),
        ("x + 1", QUESTION, "x + 1"),
        ("b", "Which variable is free?", "b"),
        ("1", "How many? (a) and (b) are given.", "1"),
        ("1", "How many? (A) 1 (B) 2 (C) 3", "1"),
        ("2", "John A. Smith has 2 cats and Mary B. Jones has 3. How many has John?", "2"),
        ("x", "Class (A) has x pupils, class (B) has y. Which is less?", "x"),
    ],
)
def test_golds_of_questions_that_show_their_options(gold: str, question: str, answer: str) -> None:
    assert letter_of_shown_options(gold, question, "row 1,") == answer
    assert load_problems([{"question": question, "answer": gold}])[0].answer == answer


@pytest.mark.parametrize(
    ("gold", "match"),
    [("E", "the answer 'E', but its options are A to C"), ("1", "the answer 1, which may count"), ("G", "A to C")],
)
def test_golds_that_no_shown_option_has(gold: str, match: str) -> None:
    with pytest.raises(DPCInterpError, match=f"row 1, has .*{match}"):
        load_problems([{"question": QUESTION, "answer": gold}])


def test_letters_above_e_are_refused() -> None:
    shown = " ".join(f"({letter}) {k}" for k, letter in enumerate("ABCDEFGHIJ"))
    with pytest.raises(DPCInterpError, match="the answer 'G', but its options are A to E"):
        load_problems([{"question": f"How many? {shown}", "answer": "G"}])


@pytest.mark.parametrize(
    ("text", "value"),
    [("['a', 'b']", ["a", "b"]), ('["a"]', ["a"]), ("['a' 'b']", "['a' 'b']"), ("[x]", "[x]"), ("a", "a")],
)
def test_printed_lists(text: str, value: object) -> None:
    assert printed_list(text) == value


@pytest.mark.parametrize("last", ["Answer is B", "So the correct answer is (B).", "Option B", "ANS: B", "B", "(B)."])
def test_last_lines_that_only_name_the_answer_are_removed(last: str) -> None:
    row = {"question": "How many?", "options": OPTIONS, "correct": "B", "rationale": f"60 / 2 = 30\n{last}"}
    [problem] = load_problems([row])
    assert problem.rationale == "60 / 2 = 30\nThe answer is B"


@pytest.mark.parametrize(
    "step",
    [
        "x / 5 = 21 m. Answer C",
        "x / 5 = 21 m. Answer : Option C",
        "x / 5 = 21 m. The answer is C) 21.",
        "x / 5 = 21 m. Option C is correct.",
        "x / 5 = 21 m. So, C is the right answer!",
        "x / 5 = 21 m. Answer: $C$",
        "x / 5 = 21 m. The answer is \\boxed{C}",
        "x / 5 = 21 m. Correct answer: c",
        "x / 5 = 21 m. ANS:C",
        "x / 5 = 21 m. Answer: D",
        "x / 5 = 21 m. Thus C",
    ],
)
def test_the_clause_that_names_the_letter_is_cut(step: str) -> None:
    assert without_letter(["5 * 21 = 105", step], "C", "21") == ["5 * 21 = 105", "x / 5 = 21 m."]


@pytest.mark.parametrize(
    "step",
    [
        "x = 21, which is option C",
        "x = 21 (ANSWER C)",
        "x = 21 (C)",
        "x = 21 => C",
        "x = 21=C",
        "x = 21 C",
        "x = 21; hence (C)",
        "x = 21 matches choice C.",
        "x = 21 ==> the correct answer is C.",
    ],
)
def test_the_letter_after_its_number_is_cut(step: str) -> None:
    assert without_letter([step], "C", "21") == ["x = 21"]


@pytest.mark.parametrize(
    "step",
    [
        "Hence option C",
        "Ans: (C)",
        "answer is C) 21",
        "Answer: C) 21 apples",
        "C. 21",
        "\\boxed{C}",
        "**C**",
        "Therefore, C is correct",
        "This gives us C",
        "So we choose C.",
        "Hence, answer will be C. 21",
    ],
)
def test_a_step_that_only_names_the_letter_is_dropped(step: str) -> None:
    assert without_letter(["5 * 21 = 105", step], "C", "21") == ["5 * 21 = 105"]
    assert without_letter(["5 * 21 = 105", step, "Check: 105 / 5 = 21"], "C", "21") == [
        "5 * 21 = 105",
        "Check: 105 / 5 = 21",
    ]


def test_the_reason_for_an_option_stays() -> None:
    assert without_letter(["Option C is correct because 5 * 21 = 105."], "C", "21") == ["5 * 21 = 105."]


@pytest.mark.parametrize(
    "step",
    [
        "C = 2 * A",
        "the distance from B to C",
        "Both ways the speed is 30",
        "pipe A and pipe C fill the tank",
        "Options A and B are too small",
        "it is 37 C outside",
        "the answer must be even",
    ],
)
def test_other_letters_and_answers_stay(step: str) -> None:
    assert without_letter([step, "5 * 21 = 105"], "C", "21") == [step, "5 * 21 = 105"]


def test_long_steps_take_no_time() -> None:
    start = time.monotonic()
    without_letter(["so the answer is thus " * 400, "= => : , " * 500, "it is we get the " * 500], "C", "21")
    assert time.monotonic() - start < 1, "the patterns do not backtrack exponentially"

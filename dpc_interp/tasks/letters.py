"""Options and letters of multiple-choice rows.

An option letter is written as one capital letter, A to E. Golds such as `b`, `(B)`, `B) 30` and the text of exactly one
option become that letter. A bare number is refused, because it may count the options from 0 or from 1. The rationale
of such a row does not name the letter of the correct option: that is the answer, which has a line of its own.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from dpc_interp.errors import DPCInterpError
from dpc_interp.mathematics.option_letters import read_gold_letter, split_letter
from dpc_interp.tasks.answers import extract_gold

LETTERS = "ABCDE"
"""Letters that `answers.py` reads."""
OPTION_LETTER = re.compile(r"\s*\(?\s*([A-Ja-j])\s*\)\s*|\s*([A-Ja-j])\s*[.:]\s*")
SHOWN_OPTION = re.compile(r"(?<![\w(])(?:\(([A-Z])\)|([A-Z])[).:])\s*(?=\S)")
MIN_SHOWN = 3
"""Options that a question shows at least, if a gold that is none of them is refused."""
WHOLE_LINE = re.compile(r"(?i)\W*(?:[^\W\d]+[^\w.=]+){0,3}?(?:answer|ans|option|choice)\b.{0,20}|\W*[A-E]\W*")
"""A last line that only names the answer: `Answer is B`, `The correct option: (C)`, `D`."""
CONNECTIVE = (
    r"(?:(?:(?:and|so|hence|thus|therefore|then|which|i\.e|that|this|it|is|are|we|i|get|gives?|us|means|shows|clearly|the|our|"
    r"choose|pick|select|mark|match(?:es)?|corresponds?|to|"
    r"correct|right|final|best|required|my)\b|[∴⇒→>=,;:(\[*$-]|&gt;)[\s.]*){0,12}"
)
REASON = (
    r"(?:(?:(?:hence|thus|so|therefore|clearly|i\.e|imo|oa|∴|[⇒→]|[=>]>|gives us|choose|pick|select|match(?:es)?)"
    r"[\s.,:]*)(?:(?:this|it|we|i|is)\s+){0,3}){1,4}"
)
VERDICT = (
    r"(?:\s*(?:is|was|will|would|must|should|be|as|the|a|true|correct|right|best|answer|option|choice|one)\b){0,6}"
)


def read_options(options: object, place: str) -> list[str]:
    """Read the options of a multiple-choice row.

    Args:
        options: a list of texts, with or without letters (`A)21`, `(A) 21`, `A. 21`); letters and their texts as a
            dict; or the printed form of a list.
        place: the row, for the error messages.

    Returns:
        The texts of the options without their letters.

    Raises:
        DPCInterpError: they are no list, more than five, or their letters are not A, B, C, ... in this order.
    """
    if isinstance(options, str):
        options = printed_list(options)
    if isinstance(options, Mapping) and [str(key).upper() for key in options] == list("ABCDEFGHIJ"[: len(options)]):
        options = [f"{str(key).upper()}) {text}" for key, text in options.items()]
    if isinstance(options, str | bytes | Mapping) or not isinstance(options, Iterable):
        raise DPCInterpError(f'{place} has options that are not a list; write them as ["A)21", "B)22", ...]')
    texts = [str(option).strip() for option in options]
    if not 1 <= len(texts) <= len(LETTERS):
        raise DPCInterpError(f"{place} has {len(texts)} options; give 1 to {len(LETTERS)}, whose letters are A to E")
    matches = [OPTION_LETTER.match(text) for text in texts]
    letters = [(match[1] or match[2]).upper() if match else "" for match in matches]
    if letters == list(LETTERS[: len(texts)]):
        return [text[match.end() :] for text, match in zip(texts, matches, strict=True) if match]
    if any(match and match[1] for match in matches):
        raise DPCInterpError(
            f"{place} has options whose letters are not {', '.join(LETTERS[: len(texts)])} in this order; sort them"
        )
    return texts


def printed_list(text: str) -> object:
    """Read the printed form of a list of texts, as a CSV file holds it.

    Args:
        text: any text.

    Returns:
        The list that the text prints, as JSON or as Python code; the text itself if it is no such form.
    """
    if not re.fullmatch(r"\s*\[.*\]\s*", text, re.DOTALL) or re.search(r"""(?<!\\)['"]\s+['"]""", text):
        return text  # numpy prints a list without commas, so Python would join its texts
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError):
            continue
        return value if isinstance(value, list) else text
    return text


def letter_of_options(gold: str, options: Sequence[str], place: str) -> str:
    """Read the letter of the correct option.

    Args:
        gold: the gold of the row: `B`, `b`, `(B)`, `B) 30`, `The answer is B` or the text of an option.
        options: the texts of the options, at most five.
        place: the row, for the error messages.

    Returns:
        The letter, one of A to E.

    Raises:
        DPCInterpError: the gold is a bare number that may be an index, or names no option.
    """
    gold = (extract_gold(gold) or gold).strip()
    last = LETTERS[len(options) - 1]
    if re.fullmatch(r"\d+", gold) and int(gold) <= len(options):
        raise _ambiguous_index(gold, place)
    letter, text = split_letter(gold) or ("", "")
    if letter and letter <= last and _squeezed(text.lstrip(" .:")) in ("", _squeezed(options[LETTERS.index(letter)])):
        return letter
    same = [letter for letter, text in zip(LETTERS, options, strict=False) if _squeezed(text) == _squeezed(gold)]
    if len(same) == 1:
        return same[0]
    raise _no_option(gold, last, place)


def letter_of_shown_options(gold: str, question: str, place: str) -> str:
    """Normalise the gold of a question whose text shows its options, such as `(A) 21 (B) 30`.

    Args:
        gold: the gold of the row.
        question: the text of the question.
        place: the row, for the error message.

    Returns:
        The capital letter, if the question shows options and the gold is a letter; else the gold.

    Raises:
        DPCInterpError: the gold is a letter that no option has or that is above E, or a number that may be an index.
    """
    shown = list(SHOWN_OPTION.finditer(question))
    letters = "".join(match[1] or match[2] for match in shown)
    n_shown = max((n for n in range(2, 11) if "ABCDEFGHIJ"[:n] in letters), default=0)
    letter = read_gold_letter(gold)
    is_listed = n_shown or re.search(r"(?s)\bA \S.*\bB \S.*\bC \S|\(a\).*\(b\)", question)
    if letter and is_listed and letter in LETTERS[: n_shown or None]:
        return letter
    if n_shown < MIN_SHOWN:  # two letters may be the initials of people, or names in the question
        return gold
    if re.fullmatch(r"\(?[A-Za-z][).:]?", gold):
        raise _no_option(gold, LETTERS[:n_shown][-1], place)
    texts = [_squeezed(text) for text in SHOWN_OPTION.split(question)[3::3]]
    if re.fullmatch(r"\d", gold) and int(gold) <= n_shown and gold not in texts:
        raise _ambiguous_index(gold, place)
    return gold


def without_letter(steps: Sequence[str], letter: str, option: str) -> list[str]:
    """Remove from a rationale what names the letter of its answer.

    Last lines that only name an answer go entirely. Elsewhere the clause goes that names the correct letter: `... = 100
    m. Answer C`, `Hence option C is correct.`, `12 - 5 = 7 C` where option C is 7.

    Args:
        steps: the rationale steps.
        letter: the letter of the correct option.
        option: its text.

    Returns:
        The steps without these lines and clauses; steps of which nothing is left are dropped.
    """
    steps = [step for step in (_cut_clauses(step, letter, option) for step in steps) if step]
    while steps and WHOLE_LINE.fullmatch(steps[-1]):
        steps.pop()
    return steps


def _cut_clauses(step: str, letter: str, option: str) -> str:
    """A step without the clauses that name the correct letter."""
    text = r"\s*".join(map(re.escape, option.split()))
    named = rf"[(\[{{*$]*(?:\\(?:boxed|text|textbf|mathbf|mathrm)\{{\(?)?\b{letter}\b[)\]}}*$]*"
    start, end = rf"(?:(?<=^)|(?<=[\s.,;:(])){CONNECTIVE}", r"[\s.!,;)\]]*(?:$|(?<=[.!]\s)(?=[A-Z]))"
    keyword = r"(?:answers?|ans|options?|choices?)\b"
    link = r"[\s:=.,(\[>-]*(?:(?:is|are|will|would|must|should|be|the|correct|option|choice|answer)\b[\s:=.,(-]*){0,6}"
    because = r"(?:\s*,?\s*(?:because|since)\b\s*)"
    tail = rf"(?:[\s).:,=-]*{text}(?!\w))?" if text else ""
    more = rf"(?:(?<={_last_character(option)})\s[^.=;]{{1,15}}?)?" if text else ""  # `Answer: C) 21 apples`
    patterns = (
        rf"(?i:{start}{keyword}{link}{named}){tail}{more}(?i:{VERDICT})(?:{end}|(?i:{because}))",  # `Answer: C) 21`
        rf"(?i:{start}(?:answer|ans)\b{link}[(\[]?[A-E]\b[)\]]?){end}",  # another letter than that of the row
        rf"(?i:{start}){named}{tail}(?i:\s+(?:is|must|will)\b{VERDICT})(?:{end}|(?i:{because}))",  # `so C is correct`
        rf"(?i:(?:^|(?<=[\s.,;]))(?:(?:this|which|that)\s+)?{REASON}){named}{tail}(?: it is)?{end}",  # `Thus C`, `=> C`
        rf"^\W*?{named}[).:]?{tail}{end}",  # `C. 21`
        rf"(?<=\d)\s*\({letter}\){end}",  # `= 3 (C)`
        *([rf"(?<={_last_character(option)})\s*[=:;.,]?\s*{named}{end}"] if text else []),
    )
    for number, pattern in enumerate(patterns):
        if match := re.search(pattern, step):
            if number == len(patterns) - 1 and text and not re.search(rf"(?<!\w){text}\s*$", step[: match.start()]):
                continue
            step = f"{step[: match.start()].rstrip(' ,;:(-')} {step[match.end() :]}".strip()
    return step


def _last_character(text: str) -> str:
    return re.escape(text.rstrip()[-1])


def _squeezed(text: str) -> str:
    return "".join(text.split()).casefold().rstrip(".")


def _ambiguous_index(gold: str, place: str) -> DPCInterpError:
    return DPCInterpError(
        f"{place} has the answer {gold}, which may count its options from 0 or from 1; write the letter"
    )


def _no_option(gold: str, last: str, place: str) -> DPCInterpError:
    return DPCInterpError(
        f"{place} has the answer {gold[:40]!r}, but its options are A to {last}; write one of these letters"
    )

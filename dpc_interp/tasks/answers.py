r"""Extract the answer that a text states, and find where the statement begins.

One grammar holds for every task (docs/answers.md). A *marker* states an answer: `#### 17`, `\boxed{7}`, `The answer is
B`, `Answer: 72`. What follows it on its line, without emphasis and a final period, is the answer; a phrase ends with
its sentence. `equal` in `equivalence.py` reads numbers, letters, words and LaTeX; this module does not.

In a model's text the first `####` counts, because nothing after it belongs to the answer; otherwise the last marker
does. A question that follows an answer (`Question: ...`) ends the text. Gold solutions are read by `golds.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from dpc_interp.errors import UnknownNameError
from dpc_interp.tasks.equivalence import equal

HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]*)")
HEADING = re.compile(r"(?i)\W*(?:step|part|case|solution|explanation|conclusion|summary|approach|analysis)\b")
"""A line `#### Step 1` is a heading."""
PHRASE = re.compile(
    r"(?i)(?:\b(?:the|my)\s+(?:final\s+|correct\s+|right\s+)?answer\b"
    r"|(?:^|(?<=[.!?\n]))[ \t]*\W{0,4}(?:final\s+|correct\s+)?answer\b)"
    r"[*_]*\s*(?:\([^()\n]*\)\s*)?(?:(?:is|=)(?![a-z])\s*:?|:)[*_]*[ \t]*(?:\n\s*)?([^\n]*)"
)
"""`The answer is 72`, `**Answer:** 72`; a line break may follow the colon."""
BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
WITHOUT_BRACES = re.compile(r"\d+|\\[dt]?frac\s*(?:\{[^{}]*\}\s*\{[^{}]*\}|\d\d)|\\sqrt\s*(?:\{[^{}]*\}|\d)|[A-Za-z]")
"""What `\\boxed` frames where no brace follows: `\\boxed2`, `\\boxed\\frac12`."""
NEXT_QUESTION = re.compile(
    r"(?i)\n\s*(?:\W{0,4}(?:question|q|problem|human|user)\s*\d*\W{0,2}:|#{3}\s*(?:instruction|question))"
)
"""The beginning of another question, see `STOP_STRINGS` in `generation/stopping.py`."""
SENTENCE_END = re.compile(r"(?<![A-Z]\.)(?<!\bSt\.)(?<!\bDr\.)(?<!\bMr\.)(?<!\bMs\.)(?<=[.!?])\s+")
NUMBER_WITH_COMMAS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")
NUMBER = re.compile(r"(?P<before>[-+−]?)\s*\\?[$€£]?\s*(?P<after>[-−]?)\s*(?P<digits>\d[\d,]*(?:\.\d+)?|\.\d+)")
LETTER = re.compile(
    r"(?:[Oo]ption|[Cc]hoice)?\s*(?:\((?P<round>[A-Ea-e])\)|\[(?P<square>[A-Ea-e])\]|(?P<bare>[A-E])(?![\w/]))"
    r"(?:\s*[).:](?:\s.*)?|\\?\s+\d.*)?|(?:[Oo]ption|[Cc]hoice)\s+(?P<named>[A-Ea-e])(?:[).:].*)?",
    re.DOTALL,
)
TEXT_COMMAND = re.compile(r"\\(?:text|textbf|mathbf|mathrm|mbox|textrm)\s*\{([^{}]*)\}")

# gsm8k.yaml of lm-evaluation-harness: `strict-match` takes the first match, `flexible-extract` the last one.
STRICT = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
Extraction = str | Callable[[str], str | None]
"""A name of `MODES`, or a function from a text to the bare answer."""
MODES = ("marked", "strict", "flexible")


class Statement(NamedTuple):
    """A statement of an answer and its place in a text; sorts by its end.

    Attributes:
        end: index of the character after the statement.
        start: index of the first character of its marker.
        answer: the bare answer.
    """

    end: int
    start: int
    answer: str


def extract_answer(text: str, mode: Extraction = "marked") -> str | None:
    """Extract the answer of a text.

    Args:
        text: a rationale or the text of a transcript.
        mode: `marked`: the answer with a marker, see the module. `strict` and `flexible`: the two GSM8K filters of
            lm-evaluation-harness, the first number after `#### ` and the last number anywhere. Or a function from a
            text to the bare answer.

    Returns:
        The bare answer, numbers without commas and currency signs; None if the text has no answer.

    Raises:
        UnknownNameError: an unknown mode.
    """
    check_extraction(mode)
    if callable(mode):
        return mode(text)
    if mode == "marked":
        statement = _statement(text)
        return None if statement is None else statement.answer
    numbers = (STRICT if mode == "strict" else FLEXIBLE).findall(text)
    if not numbers:
        return None
    return re.sub(r"[,$]|\.$", "", numbers[0 if mode == "strict" else -1]) or None


def check_extraction(extraction: Extraction) -> None:
    """Raise `UnknownNameError` unless an extraction is a function or a name of `MODES`."""
    if not callable(extraction) and extraction not in MODES:
        raise UnknownNameError("extraction", str(extraction), MODES)


def is_correct(answer: str | None, gold: str) -> bool:
    """Whether an extracted answer equals the gold answer, as `equal` in `equivalence.py` compares them.

    Args:
        answer: an extracted answer; None if the text has none, which is never correct.
        gold: the gold answer. An option letter is compared with a letter of either case.

    Returns:
        True if they are equal.
    """
    if answer is None:
        return False
    if re.fullmatch("[A-E]", gold):
        letter = _letter(answer) or (answer.upper() if re.fullmatch("[a-e]", answer) else None)
        return letter == gold
    return equal(answer, gold)


def answer_start(text: str) -> int:
    """Find where the answer is stated: the sentence of the marker, which is often a line of its own.

    Args:
        text: a rationale or the text of a transcript.

    Returns:
        Index of the first character of that sentence; of the marker itself where the sentence has the whole rationale
        in front of it (`7 * 2 = 14 #### 14`); `len(text)` if no answer has a marker.
    """
    statement = _statement(text)
    if statement is None:
        return len(text)
    line = text.rfind("\n", 0, statement.start) + 1
    before = text[line : statement.start]
    sentence = line + max((match.end() for match in SENTENCE_END.finditer(before)), default=0)
    if not text[:sentence].strip() and re.search(r"\d|(?:\w+\W+){4}", before):
        return statement.start
    return sentence


def _statement(text: str) -> Statement | None:
    """The statement that counts."""
    statements = _statements(text)
    if not statements:
        return None
    if following := NEXT_QUESTION.search(text, min(statements).end - 1):
        statements = _statements(text[: following.start()]) or statements[:1]
    by_hashes = [statement for statement in statements if text.startswith("####", statement.start)]
    return min(by_hashes) if by_hashes else max(statements)


def _statements(text: str) -> list[Statement]:
    """Every statement of an answer. Boxes of one line are one statement; a box within a phrase is its answer."""
    statements = []
    for match in HASHES.finditer(text):
        answer = _in_line(match[1])
        if answer and not HEADING.match(match[1]):
            statements.append(Statement(match.end(), match.start(), answer))
    for match in PHRASE.finditer(text):
        answer = _in_line(match[1])
        if answer and not answer.lower().startswith("not "):
            statements.append(Statement(match.end(), match.start() + len(match[0]) - len(match[0].lstrip()), answer))
    start = 0
    for line in text.split("\n"):
        if boxes := _boxes(line):
            statements.append(Statement(start + boxes[-1].end, start + boxes[0].start, _joined(boxes)))
        start += len(line) + 1
    return [inner for inner in statements if not any(_holds(outer, inner) for outer in statements)]


def _holds(outer: Statement, inner: Statement) -> bool:
    return outer != inner and outer.start <= inner.start and inner.end <= outer.end


def _in_line(rest: str) -> str | None:
    """The answer in what follows a marker: that of a box or of another marker in it, else its first sentence."""
    if boxes := _boxes(rest):
        return _joined(boxes)
    if match := PHRASE.match(rest):
        return _in_line(match[1])
    sentences = SENTENCE_END.split(rest.strip(), maxsplit=1)
    return _bare(sentences[0]) if re.search(r"\w", sentences[0]) else None


def _boxes(line: str) -> list[Statement]:
    boxes = []
    for match in BOX.finditer(line):
        stop = _closing_brace(line, match.end() + 1) if line.startswith("{", match.end()) else None
        if stop is not None:
            boxes.append(Statement(stop + 1, match.start(), _framed(line[match.end() + 1 : stop])))
        elif bare := WITHOUT_BRACES.match(line, match.end()):
            boxes.append(Statement(bare.end(), match.start(), bare[0]))
    return [box for box in boxes if box.answer]


def _framed(content: str) -> str:
    """What a box frames: a letter, a number without the commas of its thousands, or the text itself."""
    content = content.strip()
    if NUMBER_WITH_COMMAS.fullmatch(content):
        return content.replace(",", "")  # other commas separate the entries of a list or a tuple
    return _letter(content) or content


def _joined(boxes: list[Statement]) -> str:
    """Several boxes are a list of answers."""
    return ", ".join(dict.fromkeys(box.answer for box in boxes))


def _bare(answer: str) -> str:
    """An answer without emphasis, delimiters and a final period; a number without commas, a letter without brackets."""
    previous = None
    while previous != answer:
        previous, answer = answer, answer.strip()
        answer = answer.removesuffix(".").strip("*`").removeprefix("__").removesuffix("__").strip()
        if match := re.fullmatch(r"\$([^$]+)\$|\\\((.+)\\\)|\\\[(.+)\\\]", answer, re.DOTALL):
            answer = next(group for group in match.groups() if group is not None)
    if letter := _letter(answer):
        return letter
    plain = re.sub(r"^(?:~|≈|about |approximately )\s*", "", answer)
    plain = re.sub(r"^[A-Za-z]\s*=\s*(?=\W*\d[\d,.]*$)", "", plain)
    match = NUMBER.fullmatch(plain.strip("()")) if plain.count("(") in (0, 1) else None
    if match is None:
        return answer
    is_negative = (match["before"] in ("-", "−") and match["before"]) or match["after"]
    return ("-" if is_negative else "") + match["digits"].replace(",", "")


def _letter(answer: str) -> str | None:
    """The letter of an answer in the form of an option: `B`, `(b)`, `B) 25`, `option b`."""
    plain = TEXT_COMMAND.sub(r"\1", answer).replace("\\ ", " ").strip()
    match = LETTER.fullmatch(plain)
    return None if match is None else next(letter for letter in match.groups() if letter).upper()


def _closing_brace(text: str, start: int) -> int | None:
    r"""Index of the brace that closes the one before `start`; `\{` and `\}` are symbols, not braces."""
    depth = 1
    for match in re.finditer(r"\\.|[{}]", text[start:], flags=re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return start + match.start()
    return None

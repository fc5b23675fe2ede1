r"""Cut the answer out of a text: what stands behind the marker of an answer, up to the end of the line.

`docs/answers.md` has the grammar. The markers are `####`, `\boxed{...}` and sentences such as `The answer is B.` or
`**Answer:** 72`. Behind a sentence the answer ends with the sentence. What follows a `####` answer is never part of it,
so the first one counts; of the other markers, the last one before a question of the model's own. What the answer means
is read by `equal` in `equivalence.py` only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.mathematics.boxes import find_boxes
from dpc_interp.mathematics.notation import REASON, bare_number, sentence_end, unwrap, without_text_commands
from dpc_interp.mathematics.option_letters import read_letter
from dpc_interp.tasks.equivalence import equal

Extraction = str | Callable[[str], str | None]
"""A name of `MODES`, or a function from a text to its answer, None if it has none."""
MODES = ("marked", "strict", "flexible")
STOP_STRINGS = (
    "\nQuestion:", "\nQ:", "\nProblem:", "\nExercise:", "\nHuman:", "\nUser:", "\n### Instruction", "\n### Question",
)  # fmt: skip
"""Beginnings of a question of the model's own, for a generation that ends with an answer; see `follow_on_start`."""

# gsm8k.yaml of lm-evaluation-harness: `strict-match` takes the first match, `flexible-extract` the last one.
STRICT = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")

HASHES = re.compile(r"#{4,}[ \t]*")
HEADING = re.compile(r"(?i)\W*(?:step|part|case|solution|explanation|reasoning|analysis|given|note)\b|.*:\W*$")
SENTENCE = re.compile(
    r"""(?:\b(?:so|thus|therefore|hence|then)\b,?\s+)?(?:\b(?:the|my|our|your)\s+)?
    (?:\b(?:(?:final|correct|right|best|only)\s+)*(?:answers?|ans)
      |\b(?:correct|right|best)\s+(?:option|choice|letter|alternative|response))\b
    (?:\s+(?:to|for|of)\s+[^.\n:=]{1,60}?|\s+(?:choice|option|letter))?
    ["'*_]*[ \t]*
    (?: (?:is|are|was|would\s+be|will\s+be|should\s+be|must\s+be|equals)\b(?:[\s,]+(?:therefore|thus|then|simply
        |just|given\s+by|equal\s+to))?["'*_]*[ \t]*:? | [:=] | -[ ] | \.(?=(?-i:[A-E])\b)
      | (?<=[ ])(?=[(\[]?(?-i:[A-E])[)\]]?[\s.]*$) )
    | <answer> | ^[ \t#*_]*(?:the\s+)?final\s+answer[*_ \t]*:?[*_ \t]*$
    | (?<!\w)(?=(?:(?:option|choice)\s+)?[(\[]?(?-i:[A-E])[)\]]?\s+is\s+(?:the\s+)?
        (?:correct\b|right\s+(?:answer|option|choice)))""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
SOMETHING = re.compile(r"[^\s!-/:-@\[-`{-~…–—]|\\")
NO_ANSWER = re.compile(r"(?i)(?:correct|right|wrong|incorrect|clear|(?:as follows|shown|given)?\W*(?:below|above)?)\W*")
REQUEST = re.compile(r"(?i)\b(?:check|verify|confirm|express|write|give|state|simplify)(?:s|ing)?\s+(?:on\s+)?$")
NOTHING = re.compile(r"[ \t*_:]*(?:\$\$|\\\[)?[ \t]*")
NEXT_LINE = re.compile(r"[\s*_:]*(?:(?:\$\$|\\\[)[ \t]*\n\s*)?(?P<line>[^\n]*)")
ANSWER_HEADING = re.compile(r"(?i)[*_]*(?:the\s+)?(?:(?:final|correct)\s+)?answer[*_:\s]*")
CUT = re.compile(r"<\||</?[A-Za-z]+>|\[/?INST\]|####|\s(?:Question|Q|Problem|Exercise|Human|User)\s*\d*:")
FOLLOW_ON = re.compile(
    r"\n[\s>*_]*(?:#+\s*)?[*_]*(?:(?:Question|Q|Problem|Exercise|Human|User|Student)\s*\d*[*_]*\s*[:.]"
    r"|(?<=[#] )(?:Instruction|Question|Problem|User|Human)\b)|<\|?(?:im_start|user|start_header_id)\|?>|\[INST\]"
)
ASSIGNED_NUMBER = re.compile(r"[A-Za-z]\w?\s*=\s*([-+\u2212$]?\s*[\d.][\d.,]*)")
LETTER_WORDS = re.compile(r"(?i)\b(?:the|correct|right|best|option|choice|letter|alternative|answer|is)\b")
LINE = re.compile(r"[^\n]{0,1000}")
"""More of a line is never an answer; a model in a loop writes thousands of markers on one line."""
MAX_LEAD_WORDS = 4
"""Words before a marker, at most, that belong to the answer's sentence where nothing else is left as the rationale."""


class Statement(NamedTuple):
    """A place where a text states an answer.

    Attributes:
        marker: index of the first character of its marker.
        end: index of the character after the answer.
        answer: the bare answer.
        is_hash: whether the marker is `####`.
    """

    marker: int
    end: int
    answer: str
    is_hash: bool


def extract_answer(text: str, mode: Extraction = "marked") -> str | None:
    """Extract the answer of a text that a model wrote.

    Args:
        text: the text of a transcript.
        mode: `marked`: the answer behind a marker, the first `####` or else the last marker before a question of the
            model's own. `strict` and `flexible`: the two GSM8K filters of lm-evaluation-harness, the first number after
            `#### ` and the last number anywhere. A function: what it returns for the text.

    Returns:
        The bare answer, numbers without commas and currency signs; None if the text has no answer.

    Raises:
        UnknownNameError: an unknown mode.
        DPCInterpError: a function returned something that is neither a text nor None.

    Example:
        >>> from dpc_interp.tasks.answers import extract_answer
        >>> extract_answer("Half of 144 is 72. The answer is **72**.")
        '72'
        >>> extract_answer("So it is 5/6.", lambda text: text.split()[-1])
        '5/6.'
    """
    check_extraction(mode)
    if callable(mode):
        answer = mode(text)
        if answer is not None and not isinstance(answer, str):
            raise DPCInterpError(
                f"the extraction returned {type(answer).__name__}; return a str, or None for no answer"
            )
        return answer or None
    if mode == "marked":
        stated = _stated(text, last=False)
        return stated[-1].answer if stated else None
    numbers = (STRICT if mode == "strict" else FLEXIBLE).findall(text)
    if not numbers:
        return None
    return re.sub(r"[,$]|\.$", "", numbers[0 if mode == "strict" else -1]) or None


def check_extraction(extraction: Extraction) -> None:
    """Raise `UnknownNameError` unless an extraction is a function or a name of `MODES`.

    Args:
        extraction: see `extract_answer`.
    """
    if not callable(extraction) and extraction not in MODES:
        raise UnknownNameError("extraction", str(extraction), MODES)


def extract_gold(text: str) -> str | None:
    """Extract the answer of a written solution, where the last marker counts, `####` or not.

    Args:
        text: a solution of a data file.

    Returns:
        The bare answer; None if the text has no answer.
    """
    stated = _stated(text, last=True)
    return stated[-1].answer if stated else None


def is_correct(answer: str | None, gold: str) -> bool:
    """Whether an extracted answer equals the gold answer, as `equal` in `equivalence.py` compares them.

    Args:
        answer: an extracted answer; None if the text has none, which is never correct.
        gold: the gold answer.

    Returns:
        True if they are equal.
    """
    return answer is not None and equal(answer, gold)


def answer_start(text: str, last: bool = False) -> int:
    """Find where the answer is stated, which ends the rationale.

    Args:
        text: a rationale or the text of a transcript.
        last: the statement that `extract_gold` reads, instead of the one that `extract_answer` reads.

    Returns:
        Index of the first character of the sentence that states the answer; of its marker, if the sentence also holds a
        part of the rationale (`7 * 2 = 14 #### 14`). Statements of the same answer right before it are included.
        `len(text)` if no answer has a marker.
    """
    stated = _stated(text, last)
    if not stated:
        return len(text)
    start = _statement_start(text, stated[-1].marker)
    for earlier, later in zip(stated[-2::-1], stated[:0:-1], strict=True):
        if earlier.answer != later.answer or text[earlier.end : start].strip(" \n\t$.*_"):
            break
        start = _statement_start(text, earlier.marker)
    return start


def follow_on_start(text: str) -> int | None:
    r"""Find a question that a model goes on with after its answer, such as `\nQuestion:` or `\n### Instruction`.

    Args:
        text: the text of a transcript, or its beginning.

    Returns:
        Index of the line break before the question; None as long as no question has begun after an answer.
    """
    for match in FOLLOW_ON.finditer(text):
        if any(True for _ in _statements(text[: match.start()])):
            return match.start()
    return None


def _stated(text: str, last: bool) -> list[Statement]:
    """The statements up to the one that counts, which is the last one of the list."""
    if not last:
        text = text[: follow_on_start(text)]
    statements = sorted(_statements(text))
    first_hash = next((k for k, statement in enumerate(statements) if statement.is_hash), None)
    return statements if last or first_hash is None else statements[: first_hash + 1]


def _statements(text: str) -> Iterator[Statement]:
    """Every statement of an answer, by kind of marker."""
    for match in HASHES.finditer(text):
        rest, end = _rest(text, match.end())
        if rest and not HEADING.match(rest):
            boxes = find_boxes(rest)
            named = SENTENCE.search(rest)
            answer = boxes[-1].content if boxes else rest[named.end() :] if named else rest
            if cleaned := _clean(answer[: sentence_end(answer)]):
                yield Statement(match.start(), end, cleaned, True)
    for match in SENTENCE.finditer(text):
        rest, end = _rest(text, match.end())
        stop = sentence_end(rest)
        answer = _clean(rest[:stop])
        is_request = REQUEST.search(text[max(match.start() - 20, 0) : match.start()])
        if answer and not is_request and not NO_ANSWER.fullmatch(answer):
            yield Statement(match.start(), end - len(rest) + stop, answer, False)
    for box in find_boxes(text):
        yield Statement(box.start, box.end, bare_number(box.content) or box.content, False)


def _rest(text: str, start: int) -> tuple[str, int]:
    """The rest of the line, or the next line with text if the marker ends its line, and where it ends."""
    match = LINE.match(text, start)
    line = match[0] if match else ""
    if NOTHING.fullmatch(line) or ANSWER_HEADING.fullmatch(line):
        match = NEXT_LINE.match(text, start + len(line))
        line = match["line"] if match else ""
        start = match.start("line") if match else start
    cut = CUT.search(line)
    line = line[: cut.start()] if cut else line
    return line, start + len(line)


def _statement_start(text: str, marker: int) -> int:
    line = text.rfind("\n", 0, marker) + 1
    sentence = line
    while (length := sentence_end(text[sentence:marker])) < marker - sentence:
        sentence += length + len(re.match(r"\S+\s*", text[sentence + length :])[0])  # type: ignore[index]
    lead = text[sentence:marker]
    is_all = not text[:sentence].strip()
    if re.search(r"\d", lead) or (is_all and len(lead.split()) > MAX_LEAD_WORDS):
        return marker - len(lead) + len(re.sub(r"(?:[$*_]|\\[(\[])+$", "", lead))
    return sentence


def _clean(text: str) -> str:
    """An answer without Markdown, delimiters and the reason behind it; bare numbers and letters where it is one."""
    text = re.sub(r"(?<!\w)(?:\*\*|__)|(?:\*\*|__)(?!\w)", "", REASON.sub("", text.strip(" \t\"'`,")))
    text = unwrap(unwrap(text).strip(" \t*_\"'`"))
    if match := ASSIGNED_NUMBER.fullmatch(text):
        text = match[1]
    letter = read_letter(text)
    if letter and text != letter.lower() and re.findall(r"\w+", LETTER_WORDS.sub("", without_text_commands(text))) in (
        [letter], [letter.lower()],
    ):  # fmt: skip
        return letter
    return bare_number(text) or (text if SOMETHING.search(text) else "")

r"""The places where a text states an answer: what comes after a marker, up to the end of the line.

`docs/answers.md` has the grammar. The markers are `####`, `\boxed{...}` and sentences such as `The answer is B.` or
`**Answer:** 72`. After a sentence marker the answer ends with the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from dpc_interp.mathematics.boxes import find_boxes
from dpc_interp.mathematics.notation import REASON, bare_number, sentence_end, unwrap, without_text_commands
from dpc_interp.mathematics.option_letters import read_letter

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
NEGATED = re.compile(
    r"(?i)[\s*_:,]*(?:definitely\s+|certainly\s+|simply\s+|just\s+)?(?:not|never|neither|no\s+longer)\b"
    r"(?!\s+(?:an?\s+)?(?:enough|sufficient|possible|defined|determin|known|given|real|unique|applicable|any\b))"
)
"""The rest of a sentence such as `The answer is not 5.`; `The answer is not enough information.` states an answer."""
NEGATION = re.compile(r"(?i)(?:\b(?:is|are|was|be)\s+not|\b\w+n't|\bcannot\s+be)[\s$*_(\\\[]*$")
NO_STATEMENT = re.compile(
    r"(?i)\b(?:check|verify|confirm|express|write|give|state|simplify)(?:s|ing)?\s+(?:on\s+)?$|n[o']t\s+$"
)
"""What comes before a marker that states no answer: `Check the answer: ...`, `This is not the answer: 5`."""
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
MAX_LINE = 1000
LINE = re.compile(rf"[^\n]{{0,{MAX_LINE}}}")
"""More of a line is never an answer; a model in a loop writes thousands of markers on one line."""


class Statement(NamedTuple):
    """A place where a text states an answer.

    Attributes:
        marker: index of the first character of its marker.
        end: index of the character after the answer.
        answer: the bare answer.
        kind: the kind of its marker.
    """

    marker: int
    end: int
    answer: str
    kind: Literal["hashes", "sentence", "box"]


def find_statements(text: str) -> list[Statement]:
    """Find every statement of an answer; the box within a sentence that states it is one more.

    Args:
        text: a solution or the text of a transcript.

    Returns:
        The statements in the order of their markers.
    """
    return sorted(_statements(text))


def follow_on_start(text: str) -> int | None:
    r"""Find a question that a model goes on with after its answer, such as `\nQuestion:` or `\n### Instruction`.

    Args:
        text: the text of a transcript, or its beginning.

    Returns:
        Index of the line break before the question; None as long as no question has begun after an answer.
    """
    start = 0
    for match in FOLLOW_ON.finditer(text):
        if any(True for _ in _statements(text[start : match.start()])):
            return match.start()
        start = match.start()
    return None


def _statements(text: str) -> Iterator[Statement]:
    """Every statement of an answer, by kind of marker."""
    for match in HASHES.finditer(text):
        rest, end = _rest(text, match.end())
        if rest and not HEADING.match(rest):
            boxes = find_boxes(rest)
            named = SENTENCE.search(rest)
            answer = boxes[-1].content if boxes else rest[named.end() :] if named else rest
            if cleaned := _clean(answer[: sentence_end(answer)]):
                yield Statement(match.start(), end, cleaned, "hashes")
    for match in SENTENCE.finditer(text):
        rest, end = _rest(text, match.end())
        stop = sentence_end(rest)
        answer = _clean(rest[:stop])
        lead = text[max(match.start() - 20, 0) : match.start()]
        if answer and not (NO_STATEMENT.search(lead) or NEGATED.match(rest) or NO_ANSWER.fullmatch(answer)):
            yield Statement(match.start(), end - len(rest) + stop, answer, "sentence")
    for box in find_boxes(text):
        if not NEGATION.search(text[max(box.start - 20, 0) : box.start]):
            yield Statement(box.start, box.end, bare_number(box.content) or box.content, "box")


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


def _clean(text: str) -> str:
    """An answer without Markdown, delimiters and the reason after it; bare numbers and letters where it is one."""
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

r"""Ways of writing that do not change what is meant: Markdown, math delimiters, fonts, outer braces, unicode signs.

`plain(text)` removes them: `**17**`, `$\mathbf{17}$`, `{17}` and `\(17.\)` all become `17`. What remains is compared
as letters, quantities, words or, after `to_latex`, as expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dpc_interp.mathematics.number_words import SMALL

SIGNS = str.maketrans(
    dict(zip("０１２３４５６７８９", "0123456789", strict=True))
    | {"\u2212": "-", "\ufe63": "-", "\uff0d": "-", "\u200b": "", "\ufeff": ""}
    | {"\u00a0": " ", "\u2009": " ", "\u202f": " "}
)
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
WRAPPERS = re.compile(
    r"\*\*(?P<bold>(?:(?!\*\*).)+)\*\*|__(?P<under>(?:(?!__).)+)__|`(?P<code>[^`]+)`|\*(?P<star>[^*]+)\*"
    r"|\$\$(?P<display>[^$]+)\$\$|\$(?P<inline>[^$]+)\$|\\\((?P<round>.+)\\\)|\\\[(?P<square>.+)\\\]"
    r"|\\(?:boxed|fbox|framebox)\s*\{(?P<box>.*)\}",
    re.DOTALL,
)
FONTS = re.compile(
    r"\\(?:mathbf|boldsymbol|bm|mathit|mathsf|mathtt|displaystyle|textstyle|bf|rm|it|[bB]igg?[lr]?)(?![A-Za-z])\s*"
)
TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|textsf|texttt|emph|mathrm|mbox|operatorname)\s*\{([^{}]*)\}")
APPROXIMATELY = re.compile(
    r"(?i)(?:\\approx(?![a-z])|\\sim(?![a-z])|≈|~|=|:|about\b|approximately\b|roughly\b)\s*(?=.)"
)
REASON = re.compile(
    r"(?i)(?<=\S)(?:(?:\s*,)?\s+(?:because|since)|\s*,\s+(?:so|which|as|where|when"
    r"|thus|hence|therefore|and so|but))\s.*",
    re.DOTALL,
)
STOP = re.compile(r"[.!?][)\]\"'*_]*(?=\s)|(?<=\d)\.(?=[A-Z])")
ABBREVIATION = re.compile(r"(?:^|[\s(.])(?:[A-Za-z]|Mr|Mrs|Ms|Dr|St|Mt|Ft|No|vs|approx|Jr|Sr|Prof|Inc|Co|Ltd|cf|ca)$")
NUMBER = re.compile(
    r"[(\[]?\s*([-+]?)\s*[$£€]?\s*([-+]?)\s*(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)\s*[$£€]?\s*[)\]]?"
)
SIGN_OF_INFINITY = re.compile(r"(?i)\b(?:(minus|negative)|plus|positive)\s+(?=\$?(?:\\infty|infinity|inf\b|∞))")
INFINITY = re.compile(r"(?<!\\)(?<![A-Za-z])(?:\+\s*)?(?:(?i:infinity)|inf|oo)(?![A-Za-z])|(?:\+\s*)?∞")
BASED_NUMERAL = re.compile(
    r"\(?(?P<digits>\d[\dA-F]*)\)?\s*(?:_\s*(?:\{\s*(?:\\text\s*\{)?\s*(?P<braced>\d+|[a-z]+)\s*\}*|(?P<bare>\d+))"
    r"|\(?\s*(?:in\s+)?base[\s-]+(?P<word>\d+|[a-z]+)\s*\)?)"
)


def plain(text: str) -> str:
    r"""Remove markup that surrounds an answer, and write its signs in one way.

    Args:
        text: an answer.

    Returns:
        The same answer without Markdown, delimiters, outer braces, fonts, a final period and a leading `=` or `~`;
        text commands such as `\text{cm}` stay, unless they enclose everything.
    """
    text = REASON.sub("", text.translate(SIGNS).strip())
    text = re.sub(r"([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)", lambda match: f"^{{{match[1].translate(SUPERSCRIPTS)}}}", text)
    text = re.sub(r"([₀₁₂₃₄₅₆₇₈₉]+)", lambda match: f"_{{{match[1].translate(SUBSCRIPTS)}}}", text)
    text = re.sub(r"\\left(?![a-zA-Z])|\\right(?![a-zA-Z])", "", re.sub(r"[‒–—](?=\s*\d)", "-", text))
    text = SIGN_OF_INFINITY.sub(lambda match: "-" if match[1] else "", FONTS.sub("", text))
    text = INFINITY.sub(r"\\infty ", text)
    return unwrap(re.sub(r"\+\s*\\infty", r"\\infty", text))


def unwrap(text: str) -> str:
    r"""Remove Markdown, math delimiters, braces and text commands that enclose a text, and a final period.

    Args:
        text: an answer.

    Returns:
        What they enclose, also without a leading `=`, `:` or `~`.
    """
    while (inner := _without_one_layer(text)) != text:
        text = inner
    return text


def sentence_end(text: str) -> int:
    """Find the end of the first sentence; periods of decimals and of abbreviations such as `U.S.` do not end one.

    Args:
        text: a line of text.

    Returns:
        Index of the mark that ends the sentence; `len(text)` if none does.
    """
    for match in STOP.finditer(text):
        before = text[: match.start()]
        is_option = re.fullmatch(r"[\s*_($\[]*[A-E][\s*_)$\]]*", before)
        if is_option or match[0][0] != "." or not ABBREVIATION.search(before):
            return match.start()
    return len(text)


def bare_number(text: str) -> str | None:
    r"""Read an answer that is nothing but a number, such as `\$1,234`, `- 3`, `(72)` or `72 €`.

    Args:
        text: an answer.

    Returns:
        The number without commas, currency signs and plus sign; None for other answers.
    """
    match = NUMBER.fullmatch(text.replace("\u2212", "-").replace("\\$", "$"))
    if match is None:
        return None
    is_negative = (match[1] == "-") != (match[2] == "-")
    return ("-" if is_negative else "") + match[3].replace(",", "")


def without_text_commands(text: str) -> str:
    r"""Replace text commands by their content: `\text{east}` becomes `east`.

    Args:
        text: an answer.

    Returns:
        The text without them, and without spacing commands.
    """
    return re.sub(r"\\[,;:! ]|\\quad(?![a-z])|(?<=\S)~", " ", TEXT_COMMAND.sub(r"\1", text)).strip()


def split_top_level(text: str, separator: str) -> list[str]:
    r"""Split a text where a separator is outside all brackets.

    Args:
        text: an answer.
        separator: a regular expression.

    Returns:
        The parts, stripped; the whole text if brackets do not match.
    """
    parts, start, depth = [], 0, 0
    for match in re.finditer(rf"(?P<open>[(\[{{])|(?P<close>[)\]}}])|(?P<cut>{separator})", text):
        depth += bool(match["open"]) - bool(match["close"])
        if depth < 0:
            return [text]
        if match["cut"] is not None and depth == 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()] if depth == 0 else [text]


def encloses(text: str) -> bool:
    """Whether the first character is a bracket that the last one closes.

    Args:
        text: at least two characters, of which the first is an opening bracket.

    Returns:
        True for `(3,4]`, False for `(1)+(2)`.
    """
    return next((place for place, depth in _depths(text) if depth <= 0), 0) == len(text) - 1


def numeral_value(text: str) -> tuple[str, int | None] | None:
    r"""Read a numeral with its base, such as `52_8`, `101_{2}` or `52 base 8`.

    Args:
        text: an answer.

    Returns:
        Digits and value; the value is None if the base does not have the digits. None for other texts.
    """
    match = BASED_NUMERAL.fullmatch(without_text_commands(text).replace("$", ""))
    return None if match is None else _value_in_base(match)


def to_latex(text: str) -> str:
    """Translate plain symbols, such as `sqrt(2)`, `pi` and `<=`, to LaTeX, and numerals with a base to their values.

    Args:
        text: an answer.

    Returns:
        LaTeX without delimiters.
    """
    text = re.sub(r"(?<!\\)\bsqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", re.sub(r"√\s*(\d+|[a-z])", r"\\sqrt{\1}", text))
    text = re.sub(r"(?<!\\)(?<![A-Za-z])pi\b|π", r"\\pi ", text)
    text = re.sub(r"<=|≤|⩽", r"\\le ", text)
    text = re.sub(r">=|≥|⩾", r"\\ge ", text)
    text = text.replace("∪", "\\cup ").replace("×", "\\times ").replace("÷", "/").replace("·", "\\cdot ")
    text = re.sub(r"(?<=[\w)])\*\*(?=[\w({])", "^", text)
    text = re.sub(r"(?<![\w.])\d[\dA-F]*_(?:\{\d+\}|\d+)", _based_numeral_to_decimal, text)
    return re.sub(r"\s+U\s+", r" \\cup ", text)


def _without_one_layer(text: str) -> str:
    text = APPROXIMATELY.sub("", text.strip(), count=1) if APPROXIMATELY.match(text.strip()) else text.strip()
    if (match := WRAPPERS.fullmatch(text)) and (match["box"] is None or encloses(text[text.index("{") :])):
        return next(group for group in match.groups() if group is not None).strip()
    if (match := TEXT_COMMAND.fullmatch(text)) is not None:
        return match[1].strip()
    if len(text) > 1 and text[0] == "{" and text[-1] == "}" and not text.endswith("\\}") and encloses(text):
        return text[1:-1].strip()
    return re.sub(r"(?<=[^\\.])\.$|\\\\$|(?<=\w)[,;]$|(?<=[A-Za-z]{3})!$", "", text)


def _depths(text: str) -> Iterator[tuple[int, int]]:
    """The place of each bracket and the depth after it."""
    depth = 0
    for match in re.finditer(r"[(\[{]|[)\]}]", text):
        depth += 1 if match[0] in "([{" else -1
        yield match.start(), depth


def _value_in_base(match: re.Match[str]) -> tuple[str, int | None]:
    name = match["braced"] or match["bare"] or match["word"]
    base = int(name) if name.isdigit() else SMALL.get(name, 0)
    try:
        return match["digits"], int(match["digits"], base) if 2 <= base <= 36 else None
    except ValueError:
        return match["digits"], None


def _based_numeral_to_decimal(match: re.Match[str]) -> str:
    numeral = numeral_value(match[0])
    return match[0] if numeral is None or numeral[1] is None else str(numeral[1])

"""Fonts for labels that DejaVu Sans cannot write, such as Chinese or emoji: the installed ones of the style sheet.

Task names, tokens and answers may be in any script. Text that the font of its style can write is left alone, so figures
in Latin script have the same bytes on every machine. Other text is given further fonts, in the order of the style
sheet. What no installed font has is drawn as boxes, and one warning says which font to install.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib.style
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter

STYLE = "dpc_interp.plots.dpc"
LAST_RESORT = "Last Resort High-Efficiency"
"""Matplotlib's font of labelled boxes; a text that names it causes no warning for each character."""
MISSING_GLYPH = re.compile(r"Glyph (\d+) .*missing from")
"""Matplotlib's warning for one character."""
MAX_LISTED = 8
FONTS_BY_SCRIPT = {
    "CJK": "Noto Sans CJK SC",
    "HIRAGANA": "Noto Sans CJK SC",
    "KATAKANA": "Noto Sans CJK SC",
    "HANGUL": "Noto Sans CJK SC",
    "FULLWIDTH": "Noto Sans CJK SC",
    "IDEOGRAPHIC": "Noto Sans CJK SC",
    "HEBREW": "Noto Sans Hebrew",
    "ARABIC": "Noto Sans Arabic",
    "DEVANAGARI": "Noto Sans Devanagari",
    "BENGALI": "Noto Sans Bengali",
    "TAMIL": "Noto Sans Tamil",
    "THAI": "Noto Sans Thai",
    "ETHIOPIC": "Noto Sans Ethiopic",
}
"""First word of a character's Unicode name -> a free font that has it."""


def installed(families: Sequence[str]) -> list[str]:
    """The families that matplotlib finds on this machine, in order; it would log a line for each of the others.

    Args:
        families: names of fonts.
    """
    known = {font.name for font in font_manager.fontManager.ttflist}
    return [family for family in families if family in known]


def use_fallback_fonts(target: Axes | Figure) -> None:
    """Give further fonts to texts that their own cannot write, and warn once where no font can.

    Args:
        target: the axes or the figure whose texts are looked at.
    """
    fallbacks = installed([*_style_families(), LAST_RESORT])
    unwritable = ""
    for text in _texts(target):
        if text.get_text().isascii():
            continue
        chain = list(text.get_fontfamily())
        needed = _without(text.get_text(), [_font_file(family) for family in chain])
        if needed:
            text.set_fontfamily([*chain, *fallbacks])
            readable = [family for family in fallbacks if family != LAST_RESORT]
            unwritable += _without(needed, [_font_file(family) for family in readable])
    warn_unwritable(unwritable)


@contextmanager
def one_warning_for_glyphs() -> Iterator[None]:
    """Within, matplotlib's warnings for single characters are collected; one warning follows at the end."""
    unwritable: list[str] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=MISSING_GLYPH.pattern)
        show = warnings.showwarning

        def collect(message: Warning | str, *args: object, **options: object) -> None:
            glyph = MISSING_GLYPH.match(str(message))
            if glyph:
                unwritable.append(chr(int(glyph[1])))
            else:
                show(message, *args, **options)  # type: ignore[arg-type]

        warnings.showwarning = collect
        yield
    warn_unwritable("".join(unwritable))


def warn_unwritable(characters: str) -> None:
    """Warn that no installed font has some characters, and name the fonts that have them.

    Args:
        characters: in any order; may repeat. None of them: no warning.
    """
    distinct = "".join(dict.fromkeys(characters))
    if not distinct:
        return
    fonts = ", ".join(dict.fromkeys(font_for(character) for character in distinct))
    listed = distinct[:MAX_LISTED] + ("..." if len(distinct) > MAX_LISTED else "")
    warnings.warn(
        f"no installed font has {listed}, drawn as boxes; install the font {fonts}", UserWarning, stacklevel=2
    )


def font_for(character: str) -> str:
    """A free font that has a character.

    Args:
        character: one character.
    """
    if unicodedata.category(character) == "So" and ord(character) >= 0x2190:
        return "Noto Emoji"
    return FONTS_BY_SCRIPT.get(re.split(r"[ -]", unicodedata.name(character, ""))[0], "Noto Sans")


def _style_families() -> list[str]:
    """All families of the style sheet, installed or not."""
    with matplotlib.rc_context():
        matplotlib.style.use(STYLE)
        return list(matplotlib.rcParams["font.sans-serif"])


def _texts(target: Axes | Figure) -> list[Text]:
    """The texts of axes or of a figure; tick labels that are names have been set."""
    for axes in [target] if isinstance(target, Axes) else target.axes:
        for axis in (axes.xaxis, axes.yaxis):
            # other formatters write numbers, and their ticks are found when the figure is drawn
            if isinstance(axis.get_major_formatter(), (FixedFormatter, FuncFormatter)):
                axis.get_ticklabels()
    texts: list[Any] = target.findobj(Text)
    return texts


@cache
def _characters(file: str) -> frozenset[int]:
    return frozenset(font_manager.get_font(file).get_charmap())


def _font_file(family: str) -> str:
    return str(font_manager.findfont(FontProperties(family=[family])))


def _without(text: str, files: Sequence[str]) -> str:
    """The characters of a text that are in none of the fonts; joiners and selectors have no shape of their own."""
    visible = (c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cf", "Cc", "Mn"))
    return "".join(c for c in visible if not any(ord(c) in _characters(file) for file in files))

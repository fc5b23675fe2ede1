"""Labels in any script: further fonts where they are installed, and else one line instead of one for each character."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib import font_manager

from dpc_interp.plots import fonts, style_context
from dpc_interp.plots.fonts import LAST_RESORT, font_for, installed, use_fallback_fonts
from dpc_interp.plots.style import drawing_axes


@contextmanager
def recorded() -> Iterator[list[warnings.WarningMessage]]:
    """Every warning, each time."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def written(figure: plt.Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


@pytest.fixture
def without_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with matplotlib's own fonts only."""
    bundled = [font for font in font_manager.fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", bundled)


@pytest.mark.usefixtures("without_fonts")
@pytest.mark.parametrize(
    ("label", "characters", "font"),
    [
        ("数学题", "数学题", "Noto Sans CJK SC"),
        ("ひらがな", "ひらがな", "Noto Sans CJK SC"),
        ("한국어", "한국어", "Noto Sans CJK SC"),
        ("apples 🍎🍐", "🍎🍐", "Noto Emoji"),
        ("गणित", "गणित", "Noto Sans Devanagari"),
        ("ไทย", "ไทย", "Noto Sans Thai"),
        ("word 中 and 🍎", "中🍎", "Noto Sans CJK SC, Noto Emoji"),
        ("一二三四五六七八九十", "一二三四五六七八...", "Noto Sans CJK SC"),
    ],
)
@pytest.mark.parametrize("given", [False, True], ids=["a new figure", "the caller's axes"])
def test_a_script_that_no_font_has_is_one_line(label: str, characters: str, font: str, given: bool) -> None:
    ax = plt.figure().add_subplot() if given else None
    with recorded() as caught:
        with drawing_axes(ax) as axes:
            axes.set_title(label)
            axes.set_xticks([0, 1], [label, "b"])
            axes.plot([0, 1], label=label)
            axes.legend()
        written(axes.figure)
    assert [str(warning.message) for warning in caught] == [
        f"no installed font has {characters}, drawn as boxes; install the font {font}"
    ]
    if installed([LAST_RESORT]):
        assert axes.title.get_fontfamily()[-1] == LAST_RESORT


@pytest.mark.parametrize("label", ["Latin é ß", "Ελληνικά", "кириллица", "עברית", "العربية", "α ≤ β − 1 → ∞", "✓ ★"])
def test_scripts_of_dejavu_are_left_alone(label: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with drawing_axes(None) as axes:
            axes.set_title(label)
            family = axes.title.get_fontfamily()
        written(axes.figure)
    assert axes.title.get_fontfamily() == family


def test_monospace_text_in_hebrew_is_written_in_the_sans_font() -> None:
    """DejaVu Sans Mono has no Hebrew, DejaVu Sans has."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with drawing_axes(None) as axes:
            text = axes.text(0, 0, "שלום", family="monospace")
        written(axes.figure)
    assert text.get_fontfamily()[:2] == ["monospace", "DejaVu Sans"]


def test_figures_in_latin_script_have_the_same_bytes() -> None:
    files = []
    for changes in (False, True):
        with style_context():
            axes = plt.figure().add_subplot()
            axes.set_title("accuracy")
            axes.set_xticks([0, 1], ["bare", "dpc"])
            if changes:
                use_fallback_fonts(axes.figure)
            files.append(written(axes.figure))
    assert files[0] == files[1]


@pytest.mark.usefixtures("without_fonts")
def test_what_is_drawn_by_hand_within_the_style_is_one_line() -> None:
    with recorded() as caught, style_context():
        figure = plt.figure()
        figure.suptitle("数学")
        written(figure)
        warnings.warn("another warning", UserWarning, stacklevel=1)
    messages = [str(warning.message) for warning in caught]
    assert messages == [
        "another warning",
        "no installed font has 数学, drawn as boxes; install the font Noto Sans CJK SC",
    ]


def test_an_installed_font_of_the_style_writes_what_dejavu_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A font of matplotlib stands for one of the style sheet: it has U+E000, which DejaVu Sans does not."""
    monkeypatch.setattr(fonts, "_style_families", lambda: ["DejaVu Sans", "STIXNonUnicode"])
    character = next(
        chr(code)
        for code in font_manager.get_font(font_manager.findfont("STIXNonUnicode")).get_charmap()
        if code not in font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap() and code > 128
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with drawing_axes(None) as axes:
            axes.set_title(f"a{character}")
        written(axes.figure)
    assert "STIXNonUnicode" in axes.title.get_fontfamily()


def test_families_that_are_not_installed_are_not_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """Matplotlib would log a line for each of them."""
    with caplog.at_level(logging.WARNING), style_context():
        families = list(mpl.rcParams["font.sans-serif"])
        figure = plt.figure()
        figure.suptitle("a title")
        written(figure)
    assert families == installed(families)
    assert families[0] == "DejaVu Sans"
    assert caplog.records == []


def test_the_style_sheet_names_each_font_that_is_suggested() -> None:
    assert {font_for(character) for character in "中あ한🍎เजאع"} <= set(fonts._style_families())

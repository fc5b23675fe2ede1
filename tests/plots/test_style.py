"""The packaged style: it replaces the caller's settings inside its context only; series differ in more than colour."""

from __future__ import annotations

from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt

from dpc_interp.plots import style_context
from dpc_interp.plots.style import (
    BLUE,
    COLUMN_WIDTH,
    PALETTE,
    RIGHT,
    VERMILLION,
    WRONG,
    drawing_axes,
    note_size,
    series_style,
)


def test_the_packaged_style_ignores_and_restores_the_settings_of_the_caller() -> None:
    with mpl.rc_context({"font.size": 30, "lines.linestyle": ":"}):
        with style_context():
            assert mpl.rcParams["font.size"] == 8
            assert mpl.rcParams["lines.linestyle"] == "-"
            assert mpl.rcParams["pdf.fonttype"] == 42
            assert mpl.rcParams["svg.hashsalt"] == "dpc_interp"
            assert [color.upper() for color in mpl.rcParams["axes.prop_cycle"].by_key()["color"]] == list(PALETTE)
        assert mpl.rcParams["font.size"] == 30


def test_outcomes_differ_in_more_than_colour() -> None:
    assert (RIGHT.color, WRONG.color) == (BLUE, VERMILLION) == ("#0072B2", "#D55E00")
    assert RIGHT.dash != WRONG.dash
    assert RIGHT.marker != WRONG.marker


def test_seven_series_differ_pairwise_in_colour_dash_and_marker() -> None:
    series = [series_style(i, f"series {i}") for i in range(7)]
    for attribute in ("label", "color", "dash", "marker"):
        assert len({getattr(one, attribute) for one in series}) == 7
    assert series[2].line() == {"color": "#009E73", "linestyle": "-.", "marker": "^"}


def test_after_seven_colours_repeat_with_another_dash_and_marker() -> None:
    """As many triggers are drawn as `TRIGGER_STATISTICS` has."""
    series = [series_style(i) for i in range(20)]
    for look, later in combinations(series, 2):
        assert look.color != later.color or (look.dash != later.dash and look.marker != later.marker)
    assert series[9].color == series[2].color


def test_drawing_axes_yields_the_given_axes_in_the_style_of_the_caller() -> None:
    ax = plt.figure().add_subplot()
    with mpl.rc_context({"legend.fontsize": 21}), drawing_axes(ax, (9, 9)) as axes:
        assert axes is ax
        assert note_size() == 21
    assert len(plt.get_fignums()) == 1


def test_drawing_axes_makes_a_figure_of_the_requested_size_in_the_packaged_style() -> None:
    with mpl.rc_context({"legend.fontsize": 21}), drawing_axes(None, (4, 1.5)) as axes:
        assert note_size() == 7
    assert tuple(axes.figure.get_size_inches()) == (4, 1.5)
    with drawing_axes(None) as axes:
        assert axes.figure.get_figwidth() == COLUMN_WIDTH

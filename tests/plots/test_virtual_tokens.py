"""The axis of virtual tokens: whole numbers below, and bars with their own axis that do not hide the line."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from dpc_interp.plots.virtual_tokens import draw_token_bars, set_token_axis


@pytest.mark.parametrize("n_tokens", [3, 20, 100])
def test_ticks_are_whole_numbers_and_at_most_about_ten(n_tokens: int) -> None:
    axes = plt.figure().add_subplot()
    axes.plot(np.arange(n_tokens), np.zeros(n_tokens))
    set_token_axis(axes, "masked virtual token $j$")
    ticks = axes.get_xticks()
    assert (ticks == ticks.round()).all()
    assert 3 <= len(ticks) <= 12
    assert axes.get_xlabel() == "masked virtual token $j$"


def test_bars_have_their_own_axis_below_the_line() -> None:
    axes = plt.figure().add_subplot()
    axes.plot([0, 1, 2], [5.0, 6.0, 7.0])
    limits = axes.get_ylim()
    twin = draw_token_bars(axes, [0, 1, 2], [25.0, 0.0, 75.0], top=100, ylabel="instances (%)")
    assert [bar.get_height() for bar in twin.patches] == [25, 0, 75]
    assert [bar.get_x() + bar.get_width() / 2 for bar in twin.patches] == pytest.approx([0, 1, 2])
    assert (twin.get_ylim(), twin.get_ylabel()) == ((0, 100), "instances (%)")
    assert axes.get_ylim() == limits
    assert twin.get_zorder() < axes.get_zorder()
    assert not axes.patch.get_visible()  # else the background of the line's axes would hide the bars

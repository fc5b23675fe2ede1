"""Accumulation: the heat map is the mean over instances; line, band and bars of the profile agree with the frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import plot_accumulation, plot_accumulation_profile
from dpc_interp.stats.bootstrap import mean_interval


def _bars(ax: Axes) -> list[float]:
    (twin,) = (other for other in ax.figure.axes if other is not ax)
    return [bar.get_height() for bar in twin.patches]


def test_the_heat_map_is_the_mean_over_instances(accumulation: pd.DataFrame) -> None:
    ax = plot_accumulation(accumulation.sample(frac=1, random_state=0))
    (image,) = ax.images
    for layer in range(6):
        for token in range(20):
            rows = accumulation[(accumulation["layer"] == layer) & (accumulation["virtual_token"] == token)]
            assert image.get_array()[layer, token] == pytest.approx(rows["value"].mean(), rel=1e-6)
    assert image.get_extent() == [-0.5, 19.5, -0.5, 5.5]
    assert image.origin == "lower"  # layer 0 at the bottom, as the axis says
    largest = image.get_array().max()
    assert image.get_clim() == pytest.approx((largest / 1e3, largest))


def test_the_profile_is_the_mean_over_shallow_layers(accumulation: pd.DataFrame) -> None:
    line, level = plot_accumulation_profile(accumulation, shallow=[0, 1]).lines
    expected = accumulation[accumulation["layer"] < 2].groupby("virtual_token")["value"].mean()
    np.testing.assert_array_equal(line.get_xdata(), np.arange(20))
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-6)
    assert level.get_ydata()[0] == pytest.approx(expected.mean(), rel=1e-6)


def test_the_band_is_the_interval_of_the_mean_over_instances(
    accumulation: pd.DataFrame, band_ends: Callable[..., tuple[np.ndarray, np.ndarray]]
) -> None:
    (band,) = plot_accumulation_profile(accumulation, shallow=[0, 1], seed=3).collections
    by_instance = accumulation[accumulation["layer"] < 2].pivot_table("value", "instance", "virtual_token")
    _, low, high = mean_interval(by_instance.to_numpy(float), seed=3)
    np.testing.assert_allclose(band_ends(band), (low, high))


def test_bars_are_the_share_of_instances_that_peak_at_a_token(accumulation: pd.DataFrame) -> None:
    expected = np.zeros(20)
    expected[[0, 4]] = 25, 75  # planted by the fixture
    np.testing.assert_allclose(_bars(plot_accumulation_profile(accumulation, shallow=[0])), expected)


def test_an_excluded_token_has_no_bar_but_remains_on_the_line(accumulation: pd.DataFrame) -> None:
    ax = plot_accumulation_profile(accumulation, shallow=[0], exclude=[0])
    bars = _bars(ax)
    assert bars[0] == 0
    assert sum(bars) == pytest.approx(100)
    line, level, sink = ax.lines
    assert len(line.get_xdata()) == 20
    assert sink.get_xdata().tolist() == [0]
    assert sink.get_ydata()[0] == line.get_ydata()[0]
    assert level.get_ydata()[0] == pytest.approx(np.mean(line.get_ydata()[1:])), "the mean leaves it out"


def test_an_unknown_layer_and_excluding_all_tokens_raise(accumulation: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match=r"column 'layer' lacks \[12\]"):
        plot_accumulation_profile(accumulation, shallow=[0, 12])
    with pytest.raises(DPCInterpError, match="all virtual tokens of the accumulation frame are excluded"):
        plot_accumulation_profile(accumulation, shallow=[0], exclude=range(20))

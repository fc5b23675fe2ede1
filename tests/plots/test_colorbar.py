"""Colour scales and colour bars: their limits, their label, and the plot whose scale they show."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import add_colorbar, plot_case, plot_saliency_map
from dpc_interp.plots.colorbar import log_norm

Saliency = tuple[np.ndarray, dict[str, tuple[int, int]]]


def test_the_scale_spans_decades_below_the_largest_value_and_clips() -> None:
    norm = log_norm([0.0, 1e-9, 2.0], None, 4, "map")
    assert (norm.vmin, norm.vmax) == (pytest.approx(2e-4), 2.0)
    np.testing.assert_allclose(norm([0.0, 2e-4, 2e-2, 2.0, 50.0]), [0, 0, 0.5, 1, 1])


def test_the_upper_end_of_the_scale_can_be_given() -> None:
    norm = log_norm([0.0, 2.0], 10.0, 1, "map")
    assert (norm.vmin, norm.vmax) == (1.0, 10.0)
    assert log_norm([0.0, 0.0], 10.0, 1, "map").vmax == 10.0


@pytest.mark.parametrize(("values", "vmax"), [([0.0, 0.0], None), ([1.0], 0.0), ([-1.0], None)])
def test_a_scale_without_a_positive_end_raises(values: list[float], vmax: float | None) -> None:
    with pytest.raises(DPCInterpError, match="the accumulation frame has no value above zero"):
        log_norm(values, vmax, 3, "accumulation frame")


def test_a_shared_colour_bar_shows_the_scale_of_the_first_map(saliency: Saliency) -> None:
    matrix, spans = saliency
    _, axes = plt.subplots(2, 2)
    for ax, vmax in zip(axes.flat, (0.02, 0.3, 0.3, 0.3), strict=True):
        plot_saliency_map(matrix, spans=spans, ax=ax, vmax=vmax, colorbar=False)
    bar = add_colorbar(axes, label="flow")
    assert (bar.vmin, bar.vmax) == (pytest.approx(2e-6), pytest.approx(0.02))
    assert bar.ax.get_ylabel() == "flow"


def test_a_horizontal_bar_of_token_boxes_has_its_label_on_the_left(tokens: pd.DataFrame) -> None:
    ax = plot_case(tokens, ax=plt.figure().add_subplot(), vmax=0.5, colorbar=False)
    bar = add_colorbar(ax, label="flow", location="bottom")
    assert bar.vmax == pytest.approx(0.5)
    assert bar.ax.get_xlabel() == "flow"
    assert bar.ax.xaxis.label.get_horizontalalignment() == "left"


def test_axes_without_a_heat_map_raise() -> None:
    with pytest.raises(DPCInterpError, match="no heat map on these axes"):
        add_colorbar(plt.figure().add_subplot())
    with pytest.raises(DPCInterpError, match="no heat map on these axes"):
        add_colorbar([])

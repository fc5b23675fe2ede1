"""Sink control: lines are profiles in multiples of each instance's mean; dots and intervals match the summary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import plot_sink_control, plot_sink_ratios
from dpc_interp.stats.bootstrap import mean_interval


def shares_of_the_mean(table: pd.DataFrame) -> pd.DataFrame:
    """Accumulation over its mean without the sink, virtual token 0."""
    return table.div(table.drop(columns=0).mean(axis=1), axis=0)


def test_lines_are_multiples_of_the_mean_of_each_instance(sink_controls: pd.DataFrame) -> None:
    trained, flat, level = plot_sink_control(sink_controls, shallow=[0, 1]).lines
    shallow = sink_controls[(sink_controls["condition"] == "trained") & (sink_controls["layer"] < 2)]
    table = shallow.pivot_table("value", "instance", "virtual_token")
    np.testing.assert_allclose(trained.get_ydata(), shares_of_the_mean(table).mean(), rtol=1e-6)
    np.testing.assert_allclose(flat.get_ydata(), np.ones(20))
    assert list(level.get_ydata()) == [1, 1]
    assert [trained.get_label(), flat.get_label()] == ["trained", "untrained"]
    for getter in ("get_color", "get_marker", "get_linestyle"):
        assert getattr(trained, getter)() != getattr(flat, getter)()


def test_bands_are_the_intervals_of_the_lines(
    sink_controls: pd.DataFrame, band_ends: Callable[..., tuple[np.ndarray, np.ndarray]]
) -> None:
    band, _ = plot_sink_control(sink_controls, shallow=[0, 1], seed=5).collections
    shallow = sink_controls[(sink_controls["condition"] == "trained") & (sink_controls["layer"] < 2)]
    table = shallow.pivot_table("value", "instance", "virtual_token")
    _, low, high = mean_interval(shares_of_the_mean(table).to_numpy(float), seed=5)
    np.testing.assert_allclose(band_ends(band), (low, high), rtol=1e-6)


def test_an_unknown_layer_and_rows_of_two_prompts_raise(sink_controls: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match=r"column 'layer' lacks \[12\]"):
        plot_sink_control(sink_controls, shallow=[12])
    with pytest.raises(DPCInterpError, match="give the rows of one prompt"):
        plot_sink_control(pd.concat([sink_controls, sink_controls]), shallow=[0])


def test_dots_and_intervals_are_those_of_the_summary(sink_summary: pd.DataFrame) -> None:
    ax = plot_sink_ratios(sink_summary)
    conditions = [label.get_text() for label in ax.get_yticklabels()]
    assert conditions == ["trained", "untrained", "text"]
    assert [container.get_label() for container in ax.containers] == ["seed0", "seed1"]
    heights = []
    for container in ax.containers:
        rows = sink_summary[sink_summary["prompt"] == container.get_label()]
        dots, _, (bars,) = container.lines
        np.testing.assert_allclose(dots.get_xdata(), rows["peak_ratio"])
        assert [conditions[round(y)] for y in dots.get_ydata()] == list(rows["condition"])
        ends = np.array([segment[:, 0] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends, rows[["low", "high"]])
        heights += list(dots.get_ydata())
        (chance,) = (
            line for line in ax.lines if line.get_marker() == "|" and line.get_xdata()[0] == rows["chance"].iloc[0]
        )
        np.testing.assert_allclose(chance.get_xdata(), rows["chance"])
        assert list(chance.get_ydata()) == list(dots.get_ydata())
    assert min(np.diff(sorted(heights))) > 0.1
    with pytest.raises(DPCInterpError, match="give the rows of one task"):
        plot_sink_ratios(pd.concat([sink_summary, sink_summary]))

"""Sink control: lines are each condition's profile in multiples of its mean; dots and intervals are the summary's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import plot_sink_control, plot_sink_ratios


@pytest.fixture
def controls(accumulation: pd.DataFrame) -> pd.DataFrame:
    """The fixture's peaks behind the trained prompt; flat, and a thousand times as strong, behind the other."""
    flat = accumulation.assign(value=1e-2 * (1 + accumulation["layer"]))
    return pd.concat([accumulation.assign(condition="trained"), flat.assign(condition="untrained")])


@pytest.fixture
def summary() -> pd.DataFrame:
    rows = [
        (prompt, condition, 2.0 + i + k, 1.5 + i + k, 2.2 + i + k)
        for i, prompt in enumerate(("seed0", "seed1"))
        for k, condition in enumerate(("trained", "untrained", "text"))
    ]
    return pd.DataFrame(rows, columns=["prompt", "condition", "peak_ratio", "low", "high"])


def test_lines_are_multiples_of_the_mean(controls: pd.DataFrame) -> None:
    trained, flat, level = plot_sink_control(controls, shallow=[0, 1]).lines
    shallow = controls[(controls["condition"] == "trained") & (controls["layer"] < 2)]
    table = shallow.pivot_table("value", "instance", "virtual_token")
    np.testing.assert_allclose(trained.get_ydata(), table.div(table.mean(axis=1), axis=0).mean(), rtol=1e-6)
    np.testing.assert_allclose(flat.get_ydata(), np.ones(20))
    assert list(level.get_ydata()) == [1, 1]
    assert [trained.get_label(), flat.get_label()] == ["trained", "untrained"]
    for read in ("get_color", "get_marker", "get_linestyle"):
        assert getattr(trained, read)() != getattr(flat, read)()


def test_a_layer_that_is_not_there_and_two_prompts_are_refused(controls: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match=r"column 'layer' lacks \[12\]"):
        plot_sink_control(controls, shallow=[12])
    with pytest.raises(DPCInterpError, match="give the rows of one prompt"):
        plot_sink_control(pd.concat([controls, controls]), shallow=[0])


def test_dots_and_intervals_are_those_of_the_summary(summary: pd.DataFrame) -> None:
    ax = plot_sink_ratios(summary)
    conditions = [label.get_text() for label in ax.get_yticklabels()]
    assert conditions == ["trained", "untrained", "text"]
    assert [container.get_label() for container in ax.containers] == ["seed0", "seed1"]
    heights = []
    for container in ax.containers:
        rows = summary[summary["prompt"] == container.get_label()]
        dots, _, (bars,) = container.lines
        np.testing.assert_allclose(dots.get_xdata(), rows["peak_ratio"])
        assert [conditions[round(y)] for y in dots.get_ydata()] == list(rows["condition"])
        ends = np.array([segment[:, 0] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends, rows[["low", "high"]])
        heights += list(dots.get_ydata())
    assert min(np.diff(sorted(heights))) > 0.1
    with pytest.raises(DPCInterpError, match="give the rows of one task"):
        plot_sink_ratios(pd.concat([summary, summary]))

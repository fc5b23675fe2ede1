"""Flow into each step: each line is the mean of its rows, with its interval; steps are counted from 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D
from scipy.stats import gmean

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.plots import plot_step_flow
from dpc_interp.stats.bootstrap import mean_interval


def _lines(flow: pd.DataFrame, **options: object) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in plot_step_flow(flow, **options).lines}


@pytest.mark.parametrize("source", ["prompt", "question", "rationale"])
@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize(("log", "mean"), [(True, gmean), (False, np.mean)])
def test_a_line_is_the_mean_over_instances_of_its_rows(
    flow: pd.DataFrame, source: str, correct: bool, log: bool, mean: Callable[..., float]
) -> None:
    line = _lines(flow, layers=[2, 3], min_instances=1, log=log)[f"{source}, {'right' if correct else 'wrong'}"]
    for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
        step = x - 1
        rows = flow[
            (flow["source"] == source)
            & (flow["destination"] == "rationale")
            & (flow["step"] == step)
            & ((flow["source_step"] < step) | (flow["source"] != "rationale"))
            & flow["layer"].isin([2, 3])
            & (flow["correct"] == correct)
        ]
        assert y == pytest.approx(mean(rows.groupby("instance")["value"].mean()))
    assert list(line.get_xdata()) == ([2, 3, 4] if source == "rationale" else [1, 2, 3, 4])


def test_bands_are_the_intervals_of_the_means(
    flow: pd.DataFrame, band_ends: Callable[..., tuple[np.ndarray, np.ndarray]]
) -> None:
    ax = plot_step_flow(flow, layers=[2, 3], sources=["prompt"], min_instances=1, seed=6, log=False)
    rows = flow[(flow["source"] == "prompt") & flow["step"].notna() & flow["layer"].isin([2, 3])]
    for band, correct in zip(ax.collections, (True, False), strict=True):
        table = rows[rows["correct"] == correct].pivot_table("value", "instance", "step")
        _, low, high = mean_interval(table.to_numpy(float), seed=6)
        np.testing.assert_allclose(band_ends(band), (low, high))


def test_flow_within_a_step_and_whole_segments_do_not_count(flow: pd.DataFrame) -> None:
    is_within = ((flow["source"] == "rationale") & (flow["source_step"] == flow["step"])).fillna(False)
    larger = flow.assign(value=flow["value"].where(~(is_within | flow["step"].isna()), 1.0))
    same = _lines(larger)
    for name, line in _lines(flow).items():
        np.testing.assert_array_equal(same[name].get_ydata(), line.get_ydata())


def test_right_is_solid_wrong_is_dashed_and_a_source_has_one_colour(flow: pd.DataFrame) -> None:
    lines = _lines(flow, min_instances=1)
    for source in ("prompt", "question", "rationale"):
        right, wrong = lines[f"{source}, right"], lines[f"{source}, wrong"]
        assert (right.get_linestyle(), wrong.get_linestyle()) == ("-", "--")
        assert (right.get_color(), right.get_marker()) == (wrong.get_color(), wrong.get_marker())
    assert len({line.get_color() for line in lines.values()}) == 3


def test_default_layers_are_the_last_third(flow: pd.DataFrame) -> None:
    default, deep = plot_step_flow(flow), plot_step_flow(flow, layers=[4, 5])
    assert default.get_ylabel() == "flow into step, layers 4–5"
    for line, same in zip(default.lines, deep.lines, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), same.get_ydata())


def test_steps_that_too_few_instances_reach_are_left_out(flow: pd.DataFrame, instances: pd.DataFrame) -> None:
    four_steps = instances[instances["n_steps"] == 4]
    fewest = min(four_steps["correct"].sum(), (~four_steps["correct"]).sum())
    assert max(_lines(flow, min_instances=int(fewest))["prompt, wrong"].get_xdata()) == 4
    assert max(_lines(flow, min_instances=int(fewest) + 1)["prompt, wrong"].get_xdata()) == 3
    with pytest.raises(DPCInterpError, match=r"no 'step'.*1000 instances"):
        plot_step_flow(flow, min_instances=1000)


def test_one_instance_is_drawn_as_it_is(flow: pd.DataFrame) -> None:
    one = flow[flow["instance"] == flow["instance"].iloc[0]]
    ax = plot_step_flow(one, layers=[2, 3], sources=["question"])
    (line,) = ax.lines
    rows = one[(one["source"] == "question") & one["step"].notna() & one["layer"].isin([2, 3])]
    assert line.get_ydata() == pytest.approx(rows.groupby("step")["value"].mean().to_numpy())
    (band,) = ax.collections
    assert np.ptp(band.get_paths()[0].vertices[:, 1]) == pytest.approx(np.ptp(line.get_ydata())), "no width"


def test_sources_can_be_chosen_and_unknown_ones_raise(flow: pd.DataFrame) -> None:
    assert set(_lines(flow, sources=["question"])) == {"question, right", "question, wrong"}
    with pytest.raises(UnknownNameError, match="unknown source 'answer'"):
        plot_step_flow(flow, sources=["answer"])


def test_a_frame_of_whole_segments_raises(flow: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match="no rows of single steps"):
        plot_step_flow(flow[flow["step"].isna()])


def test_flow_of_0_is_left_out_and_without_any_other_raises(flow: pd.DataFrame) -> None:
    rows = flow.assign(value=flow["value"].mask(flow["source"] == "question", 0.0))
    lines = _lines(rows, min_instances=1)
    assert np.isnan(lines["question, right"].get_ydata()).all()
    assert np.isfinite(lines["prompt, right"].get_ydata()).all()
    assert (_lines(rows, min_instances=1, log=False)["question, right"].get_ydata() == 0).all()
    with pytest.raises(DPCInterpError, match=r"into steps is 0.*pass log=False"):
        plot_step_flow(flow.assign(value=0.0))

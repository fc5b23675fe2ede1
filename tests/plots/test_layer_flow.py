"""Flow by layer: lines and bands are means and intervals of each outcome, notes are the effect sizes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import gmean

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import layer_effect_sizes, plot_layer_flow
from dpc_interp.plots.style import RIGHT, WRONG
from dpc_interp.stats.bootstrap import mean_interval

PR = {"source": "prompt", "destination": "rationale"}
COLUMNS = ["instance", "layer", "source", "source_step", "destination", "step", "value", "correct"]


def _rows(flow: pd.DataFrame, correct: bool) -> pd.DataFrame:
    """Rows from the whole prompt into the whole rationale, of one outcome."""
    is_edge = (flow["source"] == "prompt") & (flow["destination"] == "rationale")
    return flow[is_edge & flow["step"].isna() & (flow["correct"] == correct)]


@pytest.mark.parametrize(("log", "mean"), [(True, gmean), (False, np.mean)])
def test_lines_are_the_means_of_whole_segments(flow: pd.DataFrame, log: bool, mean: Callable[..., float]) -> None:
    axes = plot_layer_flow(flow, **PR, log=log)
    assert axes.get_yscale() == ("log" if log else "linear")
    lines = axes.lines
    for line, correct, outcome in zip(lines, (True, False), (RIGHT, WRONG), strict=True):
        rows = _rows(flow, correct)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(6))
        np.testing.assert_allclose(line.get_ydata(), rows.groupby("layer")["value"].agg(mean))
        assert (line.get_color(), line.get_linestyle(), line.get_marker()) == (
            outcome.color,
            outcome.dash,
            outcome.marker,
        )
        assert line.get_label() == f"{outcome.label} ($n$ = {rows['instance'].nunique()})"


def test_bands_are_the_intervals_of_the_means(
    flow: pd.DataFrame, band_ends: Callable[..., tuple[np.ndarray, np.ndarray]]
) -> None:
    for log in (True, False):
        ax = plot_layer_flow(flow, **PR, log=log, seed=3)
        for band, correct in zip(ax.collections, (True, False), strict=True):
            table = _rows(flow, correct).pivot_table("value", "instance", "layer").to_numpy()
            _, low, high = mean_interval(np.log(table) if log else table, seed=3)
            np.testing.assert_allclose(band_ends(band), (np.exp([low, high]) if log else (low, high)))


def test_flow_into_single_steps_does_not_count(flow: pd.DataFrame) -> None:
    larger = flow.assign(value=flow["value"].where(flow["step"].isna(), 1.0))
    for line, same in zip(plot_layer_flow(flow, **PR).lines, plot_layer_flow(larger, **PR).lines, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), same.get_ydata())


def test_notes_are_the_effect_sizes_in_bold_where_the_interval_excludes_zero(flow: pd.DataFrame) -> None:
    effects = layer_effect_sizes(flow, **PR)
    notes = plot_layer_flow(flow, **PR).texts
    assert [float(note.get_text().replace("−", "-")) for note in notes] == list(effects["effect"].round(1))
    assert [note.xy[0] for note in notes] == list(effects["layer"])
    bold = (effects["low"] > 0) | (effects["high"] < 0)
    assert [note.get_fontweight() == "bold" for note in notes] == list(bold)
    assert bold.iloc[-1]  # the fixture's deepest layer differs


def test_notes_have_a_sign_and_no_negative_zero() -> None:
    """Layer 0: right 1, 2, 3 and wrong 3, 4, 5; layer 1: the reverse; layer 2: a difference that rounds to -0.0."""
    values = {0: (1, 2, 3, 3, 4, 5), 1: (3, 4, 5, 1, 2, 3), 2: (1, 2, 3.03, 1, 2, 3)}
    rows = [
        (f"i{k}", layer, "prompt", pd.NA, "rationale", pd.NA, float(value), k < 3)
        for layer, of_layer in values.items()
        for k, value in enumerate(of_layer)
    ]
    notes = plot_layer_flow(pd.DataFrame(rows, columns=COLUMNS), **PR, log=False).texts
    assert [note.get_text() for note in notes] == ["+1.6", "−1.6", "+0.0"]


def test_with_many_layers_notes_are_vertical_and_every_second_is_written(flow: pd.DataFrame) -> None:
    deep = pd.concat([flow.assign(layer=flow["layer"] + 6 * k) for k in range(5)])
    notes = plot_layer_flow(deep, **PR).texts
    assert {note.get_rotation() for note in notes} == {90}
    assert [note.xy[0] for note in notes] == list(range(0, 30, 2))


def test_effect_sizes_by_hand() -> None:
    """Right 1, 2, 3 against wrong 3, 4, 5, or their logarithms: difference 2, deviation 1, correction 1 - 3 / 15."""
    for log in (False, True):
        values = [math.exp(v) if log else v for v in (1.0, 2, 3, 3, 4, 5)]
        rows = [(f"i{k}", 0, "prompt", pd.NA, "rationale", pd.NA, v, k < 3) for k, v in enumerate(values)]
        (row,) = layer_effect_sizes(pd.DataFrame(rows, columns=COLUMNS), **PR, log=log).to_dict("records")
        assert row["effect"] == pytest.approx(2 * (1 - 3 / 15))
        assert (row["n_right"], row["n_wrong"]) == (3, 3)
        assert (row["right"], row["wrong"]) == pytest.approx((math.exp(2), math.exp(4)) if log else (2, 4))


def test_a_flow_of_0_is_left_out_on_a_logarithmic_scale(flow: pd.DataFrame) -> None:
    is_last, is_first = flow["layer"] == 5, flow["instance"] == flow["instance"].iloc[0]
    rows = flow.assign(value=flow["value"].mask(is_last & is_first, 0.0))
    without = flow[~(is_last & is_first)]
    for given in (rows, without):
        effects = layer_effect_sizes(given, **PR).set_index("layer")
        assert effects.loc[5, ["n_right", "n_wrong"]].sum() == 39
        assert effects.loc[4, ["n_right", "n_wrong"]].sum() == 40
    pd.testing.assert_frame_equal(layer_effect_sizes(rows, **PR), layer_effect_sizes(without, **PR))
    for line, same in zip(plot_layer_flow(rows, **PR).lines, plot_layer_flow(without, **PR).lines, strict=True):
        np.testing.assert_allclose(line.get_ydata(), same.get_ydata())


def test_a_layer_without_flow_has_no_point_and_no_effect(flow: pd.DataFrame) -> None:
    rows = flow.assign(value=flow["value"].mask(flow["layer"] == 5, 0.0))
    effects = layer_effect_sizes(rows, **PR).set_index("layer")
    assert effects.loc[5, ["right", "wrong", "effect", "low", "high", "p", "p_holm"]].isna().all()
    for line in plot_layer_flow(rows, **PR).lines:
        assert np.isfinite(line.get_ydata()).tolist() == [*[True] * 5, False]
    assert layer_effect_sizes(rows, **PR, log=False).loc[5, ["right", "wrong"]].tolist() == [0, 0]
    with pytest.raises(DPCInterpError, match=r"from 'prompt' to 'rationale' is 0.*pass log=False"):
        plot_layer_flow(flow.assign(value=0.0), **PR)


def test_flow_below_0_raises(flow: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match=r"'value' holds .* below 0"):
        plot_layer_flow(flow.assign(value=-flow["value"]), **PR)


def test_a_single_outcome_has_a_line_and_no_effect_size(flow: pd.DataFrame) -> None:
    right = flow[flow["correct"]]
    assert layer_effect_sizes(right, **PR)[["effect", "low", "high", "wrong"]].isna().all(axis=None)
    ax = plot_layer_flow(right, **PR)
    assert len(ax.lines) == 1
    assert {note.get_text() for note in ax.texts} == {"–"}


def test_segments_without_rows_raise(flow: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match="'source' 'answer' and 'destination' 'prompt'"):
        plot_layer_flow(flow, source="answer", destination="prompt")

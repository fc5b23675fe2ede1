"""Knockouts, curves and sanity checks: lines, bands and points are means and intervals of their frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.plots import plot_deletion_curves, plot_knockout_by_layer, plot_redundancy, plot_sanity
from dpc_interp.stats.bootstrap import mean_interval

EDGES = {"highest saliency": "top", "random": "random", "lowest saliency": "bottom"}
ORDERS = {"highest saliency": "saliency", "random": "random", "lowest saliency": "reverse"}
BandEnds = Callable[..., tuple[np.ndarray, np.ndarray]]


def _by_instance(rows: pd.DataFrame, x: str, value: str, *, absolute: bool) -> pd.DataFrame:
    """Mean over draws of each instance (rows) at each x (columns)."""
    values = rows.assign(value=rows[value].abs() if absolute else rows[value])
    return values.pivot_table("value", "instance", x)


@pytest.mark.parametrize("absolute", [True, False])
def test_knockouts_are_means_by_layer_and_all_deep_layers_are_the_last_point(
    knockouts: pd.DataFrame, absolute: bool
) -> None:
    ax = plot_knockout_by_layer(knockouts, absolute=absolute)
    lines = {line.get_label(): line for line in ax.lines if line.get_label() in EDGES}
    points = [container.lines[0] for container in ax.containers]
    assert list(lines) == list(EDGES)
    for point, (label, line) in zip(points, lines.items(), strict=True):
        rows = knockouts[knockouts["edges"] == EDGES[label]]
        by_layer = _by_instance(rows[rows["layer"].notna()], "layer", "loss_change", absolute=absolute).mean()
        deep = _by_instance(rows[rows["layer"].isna()].assign(layer=-1), "layer", "loss_change", absolute=absolute)
        np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2, 3])
        np.testing.assert_allclose(line.get_ydata(), by_layer)
        np.testing.assert_allclose((point.get_xdata()[0], point.get_ydata()[0]), (4.5, deep[-1].mean()))
        assert point.get_color() == line.get_color()
    assert ax.get_yscale() == ("log" if absolute else "linear")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "2", "3", "deep"]


def test_bands_and_the_last_point_have_the_interval_of_their_mean(knockouts: pd.DataFrame, band_ends: BandEnds) -> None:
    ax = plot_knockout_by_layer(knockouts, absolute=False, seed=4)
    bands = [artist for artist in ax.collections if type(artist).__name__ == "FillBetweenPolyCollection"]
    for band, container, edges in zip(bands, ax.containers, EDGES.values(), strict=True):
        rows = knockouts[knockouts["edges"] == edges]
        table = _by_instance(rows.fillna({"layer": 9}), "layer", "loss_change", absolute=False)
        assert list(table) == [0, 1, 2, 3, 9]
        _, low, high = mean_interval(table.to_numpy(float), seed=4)
        np.testing.assert_allclose(band_ends(band), (low[:4], high[:4]))
        (segment,) = container.lines[2][0].get_segments()
        np.testing.assert_allclose(segment[:, 1], (low[4], high[4]))


def test_a_mean_of_zero_has_no_point_on_a_logarithmic_axis(knockouts: pd.DataFrame) -> None:
    knockouts.loc[(knockouts["edges"] == "bottom") & knockouts["layer"].isin([1, 3]), "loss_change"] = 0.0
    lines = {line.get_label(): line for line in plot_knockout_by_layer(knockouts).lines}
    assert np.isnan(lines["lowest saliency"].get_ydata()).tolist() == [False, True, False, True]
    assert np.isfinite(lines["highest saliency"].get_ydata()).all()


def test_the_share_of_changed_answers_is_linear_and_omits_instances_without_an_answer(knockouts: pd.DataFrame) -> None:
    has_no_answer = knockouts["instance"] == knockouts["instance"].iloc[0]
    knockouts.loc[has_no_answer, "answer_changed"] = float("nan")
    ax = plot_knockout_by_layer(knockouts, value="answer_changed")
    rows = knockouts[(knockouts["edges"] == "top") & ~has_no_answer & knockouts["layer"].notna()]
    expected = _by_instance(rows, "layer", "answer_changed", absolute=False).mean()
    np.testing.assert_allclose(ax.lines[0].get_ydata(), expected)
    assert (ax.get_yscale(), ax.get_ylabel()) == ("linear", "answers changed (share)")


def test_edges_without_a_knockout_of_all_deep_layers_have_no_last_point(knockouts: pd.DataFrame) -> None:
    ax = plot_knockout_by_layer(knockouts[knockouts["layer"].notna() | (knockouts["edges"] == "random")])
    assert [line.get_label() for line in ax.lines if line.get_label() in EDGES] == list(EDGES)
    assert len(ax.containers) == 1


@pytest.mark.parametrize("absolute", [True, False])
def test_redundancy_lines_are_means_of_effects_or_of_their_sizes(redundancy: pd.DataFrame, absolute: bool) -> None:
    frame = redundancy.assign(joint=redundancy["joint"] * np.tile([1, -1], len(redundancy) // 2), single=0.1)
    ax = plot_redundancy(frame, absolute=absolute)
    assert ax.get_yscale() == ("log" if absolute else "linear")
    columns = (frame["joint"].abs(), frame["single_size"]) if absolute else (frame["joint"], frame["single"])
    for line, values in zip(ax.lines, columns, strict=True):
        np.testing.assert_allclose(line.get_ydata(), values.groupby(frame["layer"]).mean())


@pytest.mark.parametrize("kind", ["deletion", "insertion"])
@pytest.mark.parametrize("absolute", [True, False])
def test_curves_are_means_by_fraction_with_their_intervals(
    curves: pd.DataFrame, kind: str, absolute: bool, band_ends: BandEnds
) -> None:
    ax = plot_deletion_curves(curves, kind=kind, absolute=absolute, seed=2)
    lines = [line for line in ax.lines if line.get_label() in ORDERS]
    assert [line.get_label() for line in lines] == list(ORDERS)
    for line, band in zip(lines, ax.collections, strict=True):
        rows = curves[(curves["kind"] == kind) & (curves["order"] == ORDERS[line.get_label()])]
        table = _by_instance(rows, "fraction", "loss_change", absolute=absolute)
        mean, low, high = mean_interval(table.to_numpy(), seed=2)
        np.testing.assert_allclose(line.get_xdata(), [0.0, 0.2, 0.5, 1.0])
        np.testing.assert_allclose(line.get_ydata(), mean)
        np.testing.assert_allclose(band_ends(band), (low, high))
    assert ax.get_xlabel() == f"share of edges {'removed' if kind == 'deletion' else 'put back'}"


@pytest.mark.parametrize("source", ["prompt", "all"])
def test_sanity_lines_start_at_one_and_shuffled_answers_are_the_last_point(sanity: pd.DataFrame, source: str) -> None:
    ax = plot_sanity(sanity, source=source)
    lines = [line for line in ax.lines if line.get_label().startswith("layer")]
    points = [container.lines[0] for container in ax.containers]
    for line, point, layer in zip(lines, points, (0, 2, 3), strict=True):
        rows = sanity[(sanity["source"] == source) & (sanity["layer"] == layer)]
        expected = rows[rows["test"] == "weights"].groupby("n_randomised")["value"].mean()
        assert line.get_label() == f"layer {layer}"
        np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2, 3, 4])
        np.testing.assert_allclose(line.get_ydata(), [1.0, *expected])
        assert point.get_xdata()[0] > 4
        assert point.get_ydata()[0] == pytest.approx(rows[rows["test"] == "answers"]["value"].mean())
    assert ax.get_xticklabels()[-1].get_text() == "answers\nshuffled"
    assert len(plot_sanity(sanity, layers=[1]).containers) == 1


def test_a_sanity_check_without_any_value_is_left_out(sanity: pd.DataFrame) -> None:
    """Rank correlations are NaN where the saliency is constant."""
    sanity.loc[sanity["test"] == "answers", "value"] = float("nan")
    ax = plot_sanity(sanity, layers=[0, 1])
    assert len(ax.containers) == 0
    assert [line.get_label() for line in ax.lines[:2]] == ["layer 0", "layer 1"]


def test_unknown_names_and_missing_rows_raise(
    knockouts: pd.DataFrame, curves: pd.DataFrame, sanity: pd.DataFrame
) -> None:
    with pytest.raises(UnknownNameError, match="unknown value 'flow'"):
        plot_knockout_by_layer(knockouts, value="flow")
    with pytest.raises(UnknownNameError, match="unknown kind 'removal'"):
        plot_deletion_curves(curves, kind="removal")
    with pytest.raises(DPCInterpError, match="no rows of kind 'insertion'"):
        plot_deletion_curves(curves[curves["kind"] == "deletion"], kind="insertion")
    with pytest.raises(DPCInterpError, match=r"'layer' in \[9\]"):
        plot_sanity(sanity, layers=[9])

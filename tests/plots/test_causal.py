"""Knock-outs, curves and sanity checks: lines and points are the means of their frames."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.plots import plot_deletion_curves, plot_knockout_by_layer, plot_sanity

NAMES = [f"story-{i}" for i in range(12)]
EDGES = {"highest saliency": "top", "random": "random", "lowest saliency": "bottom"}
ORDERS = {"highest saliency": "saliency", "random": "random", "lowest saliency": "reverse"}


@pytest.fixture
def knockouts() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (name, layer, edges, draw, size * rng.normal(1, 2), rng.normal(), float(rng.random() < 0.3))
        for name in NAMES
        for layer in (0, 1, 2, 3, -1)
        for edges, size, draws in (("top", 1e-2, 1), ("random", 1e-4, 3), ("bottom", 1e-7, 1))
        for draw in range(draws)
    ]
    columns = ["instance", "layer", "edges", "draw", "loss_change", "answer_probability_change", "answer_changed"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def curves() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = [
        (name, kind, order, draw, fraction, (fraction**power) * rng.normal(0.2, 1))
        for name in NAMES
        for kind in ("deletion", "insertion")
        for order, power, draws in (("saliency", 0.3, 1), ("random", 1, 2), ("reverse", 4, 1))
        for draw in range(draws)
        for fraction in (0.0, 0.2, 0.5, 1.0)
    ]
    return pd.DataFrame(rows, columns=["instance", "kind", "order", "draw", "fraction", "loss_change"])


@pytest.fixture
def sanity() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    rows = [
        (name, test, n, layer, source, rng.uniform(-0.2, 0.2))
        for name in NAMES
        for test, n in (("answers", 0), ("weights", 1), ("weights", 2), ("weights", 3), ("weights", 4))
        for layer in range(4)
        for source in ("prompt", "all")
    ]
    return pd.DataFrame(rows, columns=["instance", "test", "n_randomised", "layer", "source", "value"])


def by_instance(rows: pd.DataFrame, x: str, value: str, *, absolute: bool) -> pd.Series:
    values = rows.assign(value=rows[value].abs() if absolute else rows[value])
    return values.groupby(["instance", x])["value"].mean().groupby(x).mean()


@pytest.mark.parametrize("absolute", [True, False])
def test_knockouts_are_means_by_layer_and_deep_stands_apart(knockouts: pd.DataFrame, absolute: bool) -> None:
    ax = plot_knockout_by_layer(knockouts, absolute=absolute)
    lines = {line.get_label(): line for line in ax.lines if line.get_label() in EDGES}
    points = [container.lines[0] for container in ax.containers]
    assert list(lines) == list(EDGES)
    for point, (label, line) in zip(points, lines.items(), strict=True):
        rows = knockouts[knockouts["edges"] == EDGES[label]]
        expected = by_instance(rows, "layer", "loss_change", absolute=absolute)
        np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2, 3])
        np.testing.assert_allclose(line.get_ydata(), expected[[0, 1, 2, 3]])
        np.testing.assert_allclose((point.get_xdata()[0], point.get_ydata()[0]), (4.5, expected[-1]))
        assert point.get_color() == line.get_color()
    assert ax.get_yscale() == ("log" if absolute else "linear")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "2", "3", "deep"]


def test_where_nothing_changed_there_is_no_point(knockouts: pd.DataFrame) -> None:
    knockouts.loc[(knockouts["edges"] == "bottom") & knockouts["layer"].isin([1, 3]), "loss_change"] = 0.0
    lines = {line.get_label(): line for line in plot_knockout_by_layer(knockouts).lines}
    assert np.isnan(lines["lowest saliency"].get_ydata()).tolist() == [False, True, False, True]
    assert np.isfinite(lines["highest saliency"].get_ydata()).all()


def test_other_effects_have_their_own_axis(knockouts: pd.DataFrame) -> None:
    unknown = knockouts["instance"] == NAMES[0]
    knockouts.loc[unknown, "answer_changed"] = float("nan")  # a run without an answer
    ax = plot_knockout_by_layer(knockouts, value="answer_changed")
    top = knockouts[(knockouts["edges"] == "top") & ~unknown]
    expected = by_instance(top, "layer", "answer_changed", absolute=False)[[0, 1, 2, 3]]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), expected)
    assert (ax.get_yscale(), ax.get_ylabel()) == ("linear", "answers changed (share)")


@pytest.mark.parametrize("kind", ["deletion", "insertion"])
@pytest.mark.parametrize("absolute", [True, False])
def test_curves_are_means_by_fraction_with_bands_about_them(curves: pd.DataFrame, kind: str, absolute: bool) -> None:
    ax = plot_deletion_curves(curves, kind=kind, absolute=absolute)
    lines = [line for line in ax.lines if line.get_label() in ORDERS]
    assert [line.get_label() for line in lines] == list(ORDERS)
    for line, band in zip(lines, ax.collections, strict=True):
        rows = curves[(curves["kind"] == kind) & (curves["order"] == ORDERS[line.get_label()])]
        expected = by_instance(rows, "fraction", "loss_change", absolute=absolute)
        np.testing.assert_allclose(line.get_xdata(), expected.index)
        np.testing.assert_allclose(line.get_ydata(), expected)
        vertices = band.get_paths()[0].vertices
        at = vertices[vertices[:, 0] == 0.5, 1]
        assert at.min() < expected[0.5] < at.max()
    assert ("removed" if kind == "deletion" else "put back") in ax.get_xlabel()


@pytest.mark.parametrize("source", ["prompt", "all"])
def test_sanity_begins_at_one_and_answers_stand_apart(sanity: pd.DataFrame, source: str) -> None:
    ax = plot_sanity(sanity, source=source)
    lines = [line for line in ax.lines if line.get_label().startswith("layer")]
    points = [container.lines[0] for container in ax.containers]
    for line, point, layer in zip(lines, points, (0, 2, 3), strict=True):
        rows = sanity[(sanity["source"] == source) & (sanity["layer"] == layer)]
        expected = rows[rows["test"] == "weights"].groupby("n_randomised")["value"].mean()
        assert line.get_label() == f"layer {layer}"
        np.testing.assert_allclose(line.get_ydata(), [1.0, *expected])
        assert point.get_ydata()[0] == pytest.approx(rows[rows["test"] == "answers"]["value"].mean())
    assert ax.get_xticklabels()[-1].get_text() == "answers\nshuffled"
    assert len(plot_sanity(sanity, layers=[1]).containers) == 1


def test_frames_that_do_not_fit_are_refused(
    knockouts: pd.DataFrame, curves: pd.DataFrame, sanity: pd.DataFrame
) -> None:
    for call in (
        lambda: plot_knockout_by_layer(knockouts, value="flow"),
        lambda: plot_deletion_curves(curves, kind="removal"),
    ):
        with pytest.raises(UnknownNameError):
            call()
    for call, said in (
        (lambda: plot_knockout_by_layer(knockouts.drop(columns="edges")), "'edges'"),
        (lambda: plot_deletion_curves(curves[curves["kind"] == "deletion"], kind="insertion"), "kind 'insertion'"),
        (lambda: plot_sanity(sanity, layers=[9]), r"'layer' in \[9\]"),
    ):
        with pytest.raises(DPCInterpError, match=said):
            call()

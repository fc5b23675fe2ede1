"""Conventions of every plot: it draws into `ax`, changes no settings, raises one-line errors, repeats its bytes."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from dpc_interp import plots
from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import (
    COLUMN_WIDTH,
    STABLE_METADATA,
    plot_accumulation,
    plot_accumulation_profile,
    plot_accuracy,
    plot_case,
    plot_cooccurrence,
    plot_deletion_curves,
    plot_knockout_by_layer,
    plot_layer_flow,
    plot_precision_recall,
    plot_redundancy,
    plot_regime,
    plot_roc,
    plot_saliency_map,
    plot_sanity,
    plot_sensitivity_panel,
    plot_single_tokens,
    plot_sink_control,
    plot_sink_ratios,
    plot_step_flow,
    plot_trigger_distribution,
    plot_trigger_gain,
    plot_triggers,
    plot_verdict_calibration,
    style_context,
)

Plot = Callable[..., Axes]
SCORES = ["late_share", "nll"]
FRAME_PLOTS: dict[str, tuple[Plot, str, dict, list[str]]] = {
    "case": (plot_case, "tokens", {}, ["instance", "layer", "position", "token", "value"]),
    "accumulation": (plot_accumulation, "accumulation", {}, ["instance", "layer", "virtual_token", "value"]),
    "profile": (plot_accumulation_profile, "accumulation", {"shallow": [0, 1]}, ["layer", "virtual_token", "value"]),
    "layer_flow": (
        plot_layer_flow,
        "flow",
        {"source": "prompt", "destination": "rationale"},
        ["instance", "layer", "source", "source_step", "destination", "step", "value", "correct"],
    ),
    "step_flow": (
        plot_step_flow,
        "flow",
        {"min_instances": 3},
        ["instance", "layer", "source_step", "step", "correct"],
    ),
    "distribution": (plot_trigger_distribution, "statistics", {"threshold": 0.6}, ["late_share", "correct"]),
    "roc": (plot_roc, "statistics", {"statistics": SCORES}, ["late_share", "nll", "correct"]),
    "precision_recall": (plot_precision_recall, "statistics", {"statistics": SCORES}, ["late_share", "correct"]),
    "cooccurrence": (
        plot_cooccurrence,
        "statistics",
        {"kappa": 3.0, "alpha": 0.6},
        ["peak_ratio", "late_share", "correct"],
    ),
    "triggers": (
        plot_triggers,
        "triggers",
        {},
        ["task", "trigger", "outcome", "auroc", "auroc_low", "auroc_high"],
    ),
    "trigger_gain": (
        plot_trigger_gain,
        "triggers",
        {},
        ["task", "trigger", "rate", "firing_rate", "difference", "difference_low", "difference_high"],
    ),
    "verdict_calibration": (plot_verdict_calibration, "simulated", {}, ["truth", "changed", "n_prompts", "holds"]),
    "regime": (
        plot_regime,
        "regimes",
        {},
        ["task", "bare", "instruct_low", "pt", "helped", "harmed_high", "late_texts"],
    ),
    "accuracy": (plot_accuracy, "summary", {}, ["task", "method", "accuracy", "low", "high"]),
    "sensitivity": (plot_sensitivity_panel, "swept", {"option": "gamma"}, ["option", "value", "split", "selected"]),
    "single_tokens": (plot_single_tokens, "single_tokens", {}, ["virtual_token", "accumulation", "difference"]),
    "sink_control": (
        plot_sink_control,
        "sink_controls",
        {"shallow": [0, 1]},
        ["condition", "instance", "layer", "virtual_token", "value", "sink"],
    ),
    "sink_ratios": (
        plot_sink_ratios,
        "sink_summary",
        {},
        ["prompt", "condition", "peak_ratio", "low", "high", "chance"],
    ),
    "knockouts": (plot_knockout_by_layer, "knockouts", {}, ["instance", "layer", "edges", "loss_change"]),
    "curves": (plot_deletion_curves, "curves", {}, ["instance", "kind", "order", "fraction", "loss_change"]),
    "redundancy": (plot_redundancy, "redundancy", {}, ["instance", "layer", "joint", "single", "single_size"]),
    "sanity": (plot_sanity, "sanity", {}, ["instance", "test", "n_randomised", "layer", "source", "value"]),
}
"""Name -> the plot, the fixture of its frame, its options, the columns that it needs."""


@pytest.fixture(params=[*FRAME_PLOTS, "map"])
def draw(request: pytest.FixtureRequest) -> Callable[..., Axes]:
    """Each plot in turn with its frame and options."""
    if request.param == "map":
        matrix, spans = request.getfixturevalue("saliency")
        return lambda **keywords: plot_saliency_map(matrix, spans=spans, **keywords)
    plot, fixture, options, _ = FRAME_PLOTS[request.param]
    frame = request.getfixturevalue(fixture)
    return lambda **keywords: plot(frame, **options, **keywords)


def test_every_plot_is_tested_here() -> None:
    """`plot_sensitivity` draws several axes; it consists of `plot_sensitivity_panel`."""
    tested = {plot.__name__ for plot, *_ in FRAME_PLOTS.values()} | {"plot_saliency_map", "plot_sensitivity"}
    assert tested == {name for name in plots.__all__ if name.startswith("plot_")}


def test_given_axes_are_used_and_returned_and_settings_are_unchanged(draw: Callable[..., Axes]) -> None:
    before = dict(mpl.rcParams)
    fig, (left, right) = plt.subplots(1, 2)
    assert draw(ax=right) is right
    assert right.has_data()
    assert not left.has_data()
    assert plt.get_fignums() == [fig.number]
    assert dict(mpl.rcParams) == before


def test_a_new_figure_is_one_column_wide_in_the_packaged_style_and_nothing_is_cut_off(
    draw: Callable[..., Axes],
) -> None:
    before = dict(mpl.rcParams)
    fig = draw().figure
    assert dict(mpl.rcParams) == before
    fig.draw_without_rendering()
    texts = [text for text in fig.findobj(mpl.text.Text) if text.get_visible() and text.get_text().strip()]
    assert {round(text.get_fontsize(), 2) for text in texts} <= {7.0, 8.0}
    inches = fig.get_tightbbox()
    assert fig.get_figwidth() == COLUMN_WIDTH
    assert min(inches.x0, inches.y0) > -0.01
    assert inches.x1 < fig.get_figwidth() + 0.01
    assert inches.y1 < fig.get_figheight() + 0.01


@pytest.mark.parametrize("name", FRAME_PLOTS)
def test_a_missing_column_and_an_empty_frame_raise_one_line_that_names_the_column(
    name: str, request: pytest.FixtureRequest
) -> None:
    plot, fixture, options, columns = FRAME_PLOTS[name]
    frame: pd.DataFrame = request.getfixturevalue(fixture)
    for column in columns:
        with pytest.raises(DPCInterpError, match=f"lacks the column '{column}'") as error:
            plot(frame.drop(columns=column), **options)
        assert "\n" not in str(error.value)
        with pytest.raises(DPCInterpError, match=f"is empty.*'{column}'"):
            plot(frame.iloc[:0], **options)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("case", "value"),
        ("layer_flow", "value"),
        ("step_flow", "value"),
        ("roc", "nll"),
        ("accuracy", "low"),
        ("sensitivity", "difference"),
    ],
)
def test_values_that_are_not_finite_raise(name: str, column: str, request: pytest.FixtureRequest) -> None:
    plot, fixture, options, _ = FRAME_PLOTS[name]
    frame: pd.DataFrame = request.getfixturevalue(fixture)
    frame[column] = frame[column].where(np.arange(len(frame)) % 7 > 0)
    with pytest.raises(DPCInterpError, match=f"column '{column}' holds \\d+ values that are not finite"):
        plot(frame, **options)


@pytest.mark.parametrize("name", ["layer_flow", "step_flow", "distribution", "roc", "cooccurrence"])
def test_an_outcome_that_is_not_boolean_raises(name: str, request: pytest.FixtureRequest) -> None:
    plot, fixture, options, _ = FRAME_PLOTS[name]
    frame: pd.DataFrame = request.getfixturevalue(fixture)
    with pytest.raises(DPCInterpError, match="'correct' must hold True or False"):
        plot(frame.assign(correct=frame["correct"].map({True: "yes", False: "no"})), **options)


def _digest(data: bytes) -> str:
    """Digest of a file, so that a failure does not print two files."""
    return hashlib.sha256(data).hexdigest()


def _bytes(draw: Callable[..., Axes], kind: str) -> bytes:
    buffer = io.BytesIO()
    with style_context():
        draw().figure.savefig(buffer, format=kind, dpi=100, metadata=STABLE_METADATA[kind])
    plt.close("all")
    return buffer.getvalue()


def test_two_renders_are_byte_identical(draw: Callable[..., Axes]) -> None:
    assert _digest(_bytes(draw, "png")) == _digest(_bytes(draw, "png"))


@pytest.mark.parametrize("draw", ["case", "distribution", "map"], indirect=True)  # monospace text; hatches; an image
def test_two_pdfs_are_byte_identical_with_truetype_fonts_and_no_date(draw: Callable[..., Axes]) -> None:
    first, second = _bytes(draw, "pdf"), _bytes(draw, "pdf")
    assert _digest(first) == _digest(second)
    assert b"/FontFile2" in first  # an embedded TrueType program
    assert b"/Type3" not in first
    assert b"CreationDate" not in first


def test_two_svgs_are_byte_identical_without_a_date(accumulation: pd.DataFrame) -> None:
    first, second = (_bytes(lambda: plot_accumulation_profile(accumulation, shallow=[0]), "svg") for _ in range(2))
    assert _digest(first) == _digest(second)
    assert not re.search(rb"dc:date|\d\d:\d\d:\d\d", first)


def test_the_order_of_rows_does_not_matter(flow: pd.DataFrame) -> None:
    shuffled = flow.sample(frac=1, random_state=1)
    options = {"source": "prompt", "destination": "rationale"}
    assert _digest(_bytes(lambda: plot_layer_flow(flow, **options), "png")) == _digest(
        _bytes(lambda: plot_layer_flow(shuffled, **options), "png")
    )

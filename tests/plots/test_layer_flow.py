"""Flow by layer: lines are the means of each outcome, notes are the effect sizes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dpc_interp.errors import DPCInterpError
from dpc_interp.plots import layer_effect_sizes, plot_layer_flow
from dpc_interp.plots.layer_flow import _signed
from dpc_interp.plots.style import RIGHT, WRONG

PR = {"source": "prompt", "destination": "rationale"}


def _whole(flow: pd.DataFrame) -> pd.DataFrame:
    return flow[(flow["source"] == "prompt") & (flow["destination"] == "rationale") & (flow["step"] == -1)]


def test_lines_are_the_means_of_whole_segments(flow: pd.DataFrame) -> None:
    lines = plot_layer_flow(flow, **PR).lines
    for line, correct, look in zip(lines, (True, False), (RIGHT, WRONG), strict=True):
        rows = _whole(flow)[_whole(flow)["correct"] == correct]
        np.testing.assert_array_equal(line.get_xdata(), np.arange(6))
        np.testing.assert_allclose(line.get_ydata(), rows.groupby("layer")["value"].mean())
        assert (line.get_color(), line.get_linestyle(), line.get_marker()) == (look.color, look.dash, look.marker)
        assert line.get_label() == f"{look.label} ($n$ = {rows['instance'].nunique()})"


def test_bands_hold_their_means(flow: pd.DataFrame) -> None:
    ax = plot_layer_flow(flow, **PR)
    for band, line in zip(ax.collections, ax.lines, strict=True):
        vertices = band.get_paths()[0].vertices
        for layer, mean in zip(line.get_xdata(), line.get_ydata(), strict=True):
            ends = vertices[vertices[:, 0] == layer, 1]
            assert ends.min() < mean < ends.max()


def test_notes_are_the_effect_sizes_in_bold_where_zero_is_out(flow: pd.DataFrame) -> None:
    effects = layer_effect_sizes(flow, **PR)
    notes = plot_layer_flow(flow, **PR).texts
    assert [float(note.get_text().replace("−", "-")) for note in notes] == list(effects["effect"].round(1))
    assert [note.xy[0] for note in notes] == list(effects["layer"])
    bold = (effects["low"] > 0) | (effects["high"] < 0)
    assert [note.get_fontweight() == "bold" for note in notes] == list(bold)
    assert bold.iloc[-1]  # the fixture's deepest layer differs


def test_small_and_negative_effects_are_written_with_their_sign() -> None:
    assert [_signed(effect) for effect in (0.31, -0.56, -0.04)] == ["+0.3", "−0.6", "+0.0"]


def test_many_layers_are_annotated_upright_and_thinned_out(flow: pd.DataFrame) -> None:
    deep = pd.concat([flow.assign(layer=flow["layer"] + 6 * k) for k in range(5)])
    notes = plot_layer_flow(deep, **PR).texts
    assert {note.get_rotation() for note in notes} == {90}
    assert [note.xy[0] for note in notes] == list(range(0, 30, 2))


def test_effect_sizes_by_hand() -> None:
    """Right 1, 2, 3 against wrong 3, 4, 5: difference 2, pooled deviation 1, correction 1 - 3 / 15."""
    rows = [(f"i{k}", 0, "prompt", -1, "rationale", -1, v, k < 3) for k, v in enumerate((1.0, 2, 3, 3, 4, 5))]
    columns = ["instance", "layer", "source", "source_step", "destination", "step", "value", "correct"]
    (row,) = layer_effect_sizes(pd.DataFrame(rows, columns=columns), **PR).to_dict("records")
    assert row["effect"] == pytest.approx(2 * (1 - 3 / 15))
    assert (row["n_right"], row["n_wrong"], row["right"], row["wrong"]) == (3, 3, 2, 4)


def test_one_outcome_alone_has_a_line_and_no_effect(flow: pd.DataFrame) -> None:
    right = flow[flow["correct"]]
    assert layer_effect_sizes(right, **PR)[["effect", "low", "high", "wrong"]].isna().all(axis=None)
    ax = plot_layer_flow(right, **PR)
    assert len(ax.lines) == 1
    assert {note.get_text() for note in ax.texts} == {"–"}


def test_segments_that_are_not_there_are_refused(flow: pd.DataFrame) -> None:
    with pytest.raises(DPCInterpError, match="'source' 'answer' and 'destination' 'prompt'"):
        plot_layer_flow(flow, source="answer", destination="prompt")

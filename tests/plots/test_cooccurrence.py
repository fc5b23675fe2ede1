"""Co-occurrence: every instance is a mark, thresholds are lines, corners state the counts of their quadrants."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpc_interp.plots import cooccurrence_table, plot_cooccurrence


def test_marks_are_the_instances_of_each_outcome(statistics: pd.DataFrame) -> None:
    ax = plot_cooccurrence(statistics, x="deep_flow", y="nll")
    for marks, correct in zip(ax.collections, (True, False), strict=True):
        rows = statistics[statistics["correct"] == correct]
        np.testing.assert_array_equal(marks.get_offsets(), rows[["deep_flow", "nll"]])
        assert marks.get_label() == f"{'right' if correct else 'wrong'} ($n$ = {len(rows)})"
    assert not ax.lines
    assert not ax.texts


def test_thresholds_are_lines_and_corners_state_the_table(statistics: pd.DataFrame) -> None:
    ax = plot_cooccurrence(statistics, kappa=3.0, alpha=0.6)
    vertical, horizontal = ax.lines
    assert vertical.get_xdata()[0] == 3.0
    assert horizontal.get_ydata()[0] == 0.6
    table = cooccurrence_table(statistics, 3.0, 0.6)
    notes = {note.xy: note.get_text() for note in ax.texts}
    assert len(notes) == 4
    assert [round(tick, 6) for tick in ax.get_yticks()] == [
        0,
        0.2,
        0.4,
        0.6,
        0.8,
        1,
    ]  # no tick above 1: a share cannot exceed it
    for row in table.to_dict("records"):
        corner = (float(row["accumulated"]), float(row["triggered"]))
        assert notes[corner] == f"$n$ = {row['n']}\n{100 * row['wrong_share']:.0f}% wrong"


def test_the_table_by_hand() -> None:
    stats = pd.DataFrame(
        {
            "peak_ratio": [1.0, 5.0, 5.0, 5.0, 1.0, 2.0],
            "late_share": [0.1, 0.9, 0.8, 0.5, 0.2, 0.9],
            "correct": [True, False, True, True, False, False],
        }
    )
    expected = pd.DataFrame(  # a value equal to its threshold (2.0, 0.5) is not above it
        {
            "accumulated": [True, True, False, False],
            "triggered": [True, False, True, False],
            "n": [2, 1, 1, 2],
            "wrong_share": [0.5, 0.0, 1.0, 0.5],
        }
    )
    pd.testing.assert_frame_equal(cooccurrence_table(stats, 2.0, 0.5), expected)


def test_an_empty_quadrant_has_no_share(statistics: pd.DataFrame) -> None:
    table = cooccurrence_table(statistics, 1000.0, 0.6)
    assert list(table["n"])[:2] == [0, 0]
    assert table["wrong_share"].isna().tolist() == [True, True, False, False]
    notes = [note.get_text() for note in plot_cooccurrence(statistics, kappa=1000.0, alpha=0.6).texts]
    assert notes[:2] == ["$n$ = 0", "$n$ = 0"]

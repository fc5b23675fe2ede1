"""Cells of tables by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from dpc_interp.evaluation.tables import accuracy_table, markdown, percent, variants_table

SUMMARY = {
    "task": "story",
    "variant": "noise",
    "method": "dpc",
    "n": 200,
    "n_prompts": 2,
    "accuracy": 0.52,
    "low": 0.4761,
    "high": 0.5634,
    "difference": -0.0104,
    "difference_low": -0.0306,
    "difference_high": 0.0004,
    "p_mcnemar": 0.0123,
    "p_by_prompt": "0.01, 0.2",
    "fixed": 4,
    "broken": 6,
    "both_right": 100,
    "both_wrong": 90,
    "firing_rate": 0.3333,
    "tokens": 41.26,
}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.52,), "52.0"),
        ((0.52, 0.4761, 0.5634), "52.0 [47.6, 56.3]"),
        ((-0.0104, -0.0306, 0.0004), "-1.0 [-3.1, 0.0]"),
        ((-0.0004,), "0.0"),
        ((float("nan"),), "nan"),
        ((1.0, 0.5, None), "100.0"),
    ],
)
def test_percent(arguments: tuple[float, ...], text: str) -> None:
    """Rounded to tenths of a percent, never -0.0; both bounds or no interval."""
    assert percent(*arguments) == text


def test_markdown() -> None:
    frame = pd.DataFrame({"task": ["story", "rule"], "n": [1, 20]}, index=[7, 8])
    assert markdown(frame).splitlines() == ["| task | n |", "| --- | --- |", "| story | 1 |", "| rule | 20 |"]


def test_accuracy_cells_by_hand() -> None:
    (row,) = accuracy_table(pd.DataFrame([SUMMARY])).to_dict("records")
    assert row == {
        "task": "story",
        "method": "dpc",
        "accuracy % [95%]": "52.0 [47.6, 56.3]",
        "minus pt, points [95%]": "-1.0 [-3.1, 0.0]",
        "McNemar p by prompt": "0.01, 0.2",
        "fixed": 4,
        "broken": 6,
        "both right": 100,
        "both wrong": 90,
        "fires %": "33.3",
        "tokens": "41.3",
        "n": 200,
        "prompts": 2,
    }


def test_variant_cells_by_hand() -> None:
    (row,) = variants_table(pd.DataFrame([SUMMARY])).to_dict("records")
    assert row == {
        "task": "story",
        "variant": "noise",
        "fires": "dpc",
        "minus pt, points [95%]": "-1.0 [-3.1, 0.0]",
        "McNemar p": "0.012",
        "fixed": 4,
        "broken": 6,
        "fires %": "33.3",
        "n": 200,
    }


def test_rows_stay_in_order() -> None:
    frame = pd.DataFrame([SUMMARY | {"method": method} for method in ("pt", "dpc", "bare")])
    assert accuracy_table(frame)["method"].tolist() == ["pt", "dpc", "bare"]
    assert variants_table(frame)["fires"].tolist() == ["pt", "dpc", "bare"]

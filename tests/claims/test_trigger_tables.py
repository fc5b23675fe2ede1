"""Tables of triggers: the numbers of their frames, in percent and points."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from dpc_interp import Results, compare_triggers, triggers_table
from dpc_interp.claims.trigger_tables import regression_table

TRIGGERS = ("late_share", "constant")


@pytest.fixture(scope="module")
def frame(planted: Callable[..., Results]) -> pd.DataFrame:
    return compare_triggers(planted(), [0.1, 0.3], triggers=TRIGGERS)


def test_one_row_a_rate_and_trigger(frame: pd.DataFrame) -> None:
    table = triggers_table(frame)
    assert table["trigger"].tolist() == [*TRIGGERS, "random", "oracle"] * 2
    assert table["target %"].tolist() == ["10.0"] * 4 + ["30.0"] * 4
    two_tasks = triggers_table(pd.concat([frame, frame.assign(task="rule")]))
    assert two_tasks["task"].tolist() == ["story"] * 8 + ["rule"] * 8


def test_cells_are_the_numbers_of_the_frame(frame: pd.DataFrame) -> None:
    frame = frame[frame["rate"] == 0.3]
    table = triggers_table(frame).set_index("trigger")
    wrong, fixed = (
        frame[frame["outcome"] == outcome].set_index("trigger").loc["late_share"]
        for outcome in ("PT was wrong", "corruption fixes it")
    )
    cells = table.loc["late_share"]
    for short, row in (("wrong", wrong), ("fixed", fixed)):
        for title, name in (("AUROC", "auroc"), ("AP", "average_precision")):
            expected = f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
            assert cells[f"{title} {short} [95%]"] == expected
        assert cells[f"hit rate {short} %"] == f"{100 * row['hit_rate']:.1f}"
        assert cells[f"precision {short} %"] == f"{100 * row['precision']:.1f}"
    assert cells["accuracy % [95%]"].startswith(f"{100 * wrong['accuracy']:.1f} [")
    assert cells["minus pt, points [95%]"].startswith(f"{100 * wrong['difference']:.1f} [")
    assert cells["fires %"] == f"{100 * wrong['firing_rate']:.1f}"
    assert table.loc["random", "AUROC fixed [95%]"] == "0.50 [0.50, 0.50]"
    assert table.loc["random", "minus random, points [95%]"] == "0.0 [0.0, 0.0]"


def test_missing_numbers_are_dashes(frame: pd.DataFrame) -> None:
    table = triggers_table(frame).set_index("trigger")
    assert set(table.loc["constant", "minus pt, points [95%]"]) == {"–"}
    assert set(table.loc["constant", "hit rate wrong %"]) == {"–"}


def test_regression_cells_show_the_estimator_or_the_reason() -> None:
    rows = [
        ("story", "late_share only", "late_share", 0.456, 0.123, 0.789, 0.0123, 90, 40, "maximum likelihood", ""),
        ("rule", "late_share only", "late_share", *[float("nan")] * 4, 12, 0, "", "one outcome"),
    ]
    columns = ["task", "model", "term", "coefficient", "low", "high", "p", "n", "n_wrong", "estimator", "reason"]
    table = regression_table(pd.DataFrame(rows, columns=columns))
    assert table.iloc[0].tolist() == [
        "story", "late_share only", "late_share", "0.46 [0.12, 0.79]", "0.012", 90, 40, "maximum likelihood",
    ]  # fmt: skip
    assert table["fit"].tolist() == ["maximum likelihood", "one outcome"]

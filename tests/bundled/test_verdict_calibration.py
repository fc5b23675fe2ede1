"""The command that draws the calibration of verdicts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dpc_interp.bundled.verdict_calibration import draw_calibration
from dpc_interp.claims.simulation import CHANGED, N_PROMPTS

FIGURES = Path(__file__).parents[2] / "figures"


def test_the_figure_and_its_table_are_written(tmp_path: Path) -> None:
    draw_calibration(tmp_path, n=2)
    assert {path.suffix for path in tmp_path.glob("verdict_calibration.*")} == {".png", ".pdf", ".csv", ".parquet"}
    table = pd.read_csv(tmp_path / "verdict_calibration.csv")
    assert set(table["changed"]) == set(CHANGED)
    assert set(table["n_prompts"]) == set(N_PROMPTS)


def test_the_committed_table_keeps_the_rule() -> None:
    """2,000 experiments of each kind: three standard errors of 2.5% are 1.05%."""
    table = pd.read_csv(FIGURES / "verdict_calibration.csv")
    assert (table["n"] == 2000).all()
    none = table[table["truth"] == "no effect"]
    assert none[["holds", "fails"]].max(axis=None) <= 0.0355
    assert table.loc[(table["truth"] == "paper's effect") & (table["n_prompts"] == 10), "holds"].min() >= 0.8

"""The regime of an experiment, worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dpc_interp import Results, regime
from dpc_interp.claims.regime import obstacles, regime_table
from dpc_interp.evaluation.tables import markdown

PT, INSTRUCT, BARE = "1100110011", "1111000011", "1000000000"


@pytest.fixture(scope="module")
def results(world: Callable[..., list[Results]]) -> list[Results]:
    """Two prompts on ten problems; the second one has every answer right. The cut-off changes three texts of each."""
    results = []
    for name, pt in (("seed0", PT), ("seed1", "1" * 10)):
        outcomes = {"bare": BARE, "instruct": INSTRUCT, "cut_off": "0" + pt[1:], "pt": pt}
        rows = [
            ("story", name, method, f"story-{k}", outcome == "1", method == "cut_off" and k < 3)
            for method, correct in outcomes.items()
            for k, outcome in enumerate(correct)
        ]
        columns = ["task", "prompt", "method", "instance", "correct", "changed"]
        results.append(replace(world(0, true=True)[0], instances=pd.DataFrame(rows, columns=columns)))
    return results


def test_shares_and_counts_by_hand(results: list[Results]) -> None:
    """Helped: problems 4 and 5 under the first prompt, 4 to 7 under the second; harmed: 2 and 3 under the first."""
    (row,) = regime(results).to_dict("records")
    assert (row["n"], row["n_prompts"], row["n_helped"], row["n_harmed"]) == (10, 2, 6, 2)
    assert [row[name] for name in ("bare", "instruct", "pt")] == pytest.approx([0.1, 0.6, 0.8])
    assert [row["helped"], row["harmed"], row["late_texts"], row["late_gain"]] == pytest.approx([0.3, 0.1, 0.3, -0.1])
    for name in ("bare", "instruct", "pt", "helped", "harmed", "late_texts", "late_gain"):
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]


def test_obstacles_name_what_is_missing(results: list[Results]) -> None:
    row = regime(results).iloc[0]
    assert obstacles(row) == {"late": "", "harmed": "2 harmed answers"}
    unchanged = [replace(r, instances=r.instances.assign(changed=False)) for r in results]
    assert obstacles(regime(unchanged).iloc[0])["late"] == "cutting the text off from the prompt changes 0.0% of texts"


def test_methods_that_were_not_evaluated_are_not_measured(results: list[Results]) -> None:
    alone = [replace(r, instances=r.instances.query("method == 'pt'")) for r in results]
    frame = regime(alone)
    row = frame.iloc[0]
    assert np.isnan(row[["bare", "instruct", "harmed", "late_texts"]].to_numpy(float)).all()
    assert obstacles(row) == {"late": "cut_off was not evaluated", "harmed": "instruct was not evaluated"}
    assert (regime_table(frame) == "not measured").to_numpy().sum() == 6


def test_the_table_is_in_percent(results: list[Results]) -> None:
    line = markdown(regime_table(regime(results))).splitlines()[-1]
    assert line.startswith("| story | 10.0 [")
    assert line.endswith("| 10 | 2 | 2 harmed answers |")

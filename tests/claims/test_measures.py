"""The quantities of the claims, worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dpc_interp import Analysis, Options, Results
from dpc_interp.claims.measures import COLUMNS, accumulation_measures, grounded_share, measures


@pytest.fixture(scope="module")
def result(world: Callable[..., list[Results]]) -> Results:
    return world(7, true=True)[0]


def analysis_of(rows: list[tuple[str, int, str, object, object, float]]) -> Analysis:
    """An analysis of 3 layers with flow into the rationale: instance, layer, source, source_step, step, value."""
    flow = pd.DataFrame(rows, columns=["instance", "layer", "source", "source_step", "step", "value"])
    flow = flow.assign(destination="rationale").astype({"source_step": "Int64", "step": "Int64"})
    accumulation = pd.DataFrame({"layer": range(3), "virtual_token": 0})
    return Analysis(flow, accumulation, pd.DataFrame(), pd.DataFrame(), {})


def test_grounded_share_by_hand() -> None:
    """Steps 0 to 2: only step 2 is in the second half. P = 2, Q = 1, E = mean(4, 6) = 5, so (1 + 5) / 8."""
    rows = [
        ("a", 2, "prompt", pd.NA, 2, 2.0),
        ("a", 2, "question", pd.NA, 2, 1.0),
        ("a", 2, "rationale", 0, 2, 4.0),
        ("a", 2, "rationale", 1, 2, 6.0),
    ]
    assert grounded_share(analysis_of(rows))["a"] == pytest.approx(6 / 8)
    ignored = [
        ("a", 2, "rationale", 2, 2, 1000.0),  # the step itself
        ("a", 2, "prompt", pd.NA, 1, 1000.0),  # the first half
        ("a", 2, "prompt", pd.NA, pd.NA, 1000.0),  # the whole rationale
        ("a", 2, "rationale", pd.NA, pd.NA, 1000.0),
        ("a", 1, "prompt", pd.NA, 2, 1000.0),  # not a deep layer
    ]
    assert grounded_share(analysis_of(rows + ignored))["a"] == pytest.approx(6 / 8)


def test_the_share_of_given_layers() -> None:
    rows = [("a", layer, "prompt", pd.NA, 1, 1.0) for layer in (1, 2)]
    rows += [("a", 1, "question", pd.NA, 1, 4.0), ("a", 2, "question", pd.NA, 1, 1.0)]
    assert grounded_share(analysis_of(rows))["a"] == 0.5
    assert grounded_share(analysis_of(rows), deep=[1])["a"] == 0.8


def test_the_share_is_averaged_over_late_steps_and_the_middle_step_of_an_odd_number_is_early() -> None:
    """Five steps, 0 to 4: the late ones are 3 and 4, with shares 1/2 and 3/4; the first step never counts."""
    rows = []
    for step, grounded in enumerate((9.0, 9.0, 9.0, 1.0, 3.0)):
        rows += [("a", 2, "prompt", pd.NA, step, 1.0), ("a", 2, "question", pd.NA, step, grounded)]
    # with flow from two sources only, the sum over sources leaves out the missing one
    assert grounded_share(analysis_of(rows))["a"] == pytest.approx((1 / 2 + 3 / 4) / 2)


def test_an_instance_of_one_step_has_no_share() -> None:
    rows = [("a", 2, "prompt", pd.NA, 0, 1.0), ("a", 2, "question", pd.NA, 0, 1.0)]
    rows += [("b", 2, "prompt", pd.NA, 1, 1.0), ("b", 2, "question", pd.NA, 1, 1.0)]
    assert grounded_share(analysis_of(rows)).to_dict() == {"b": 0.5}


def test_only_late_steps_of_deep_layers_count_in_a_full_analysis(result: Results) -> None:
    """Steps 2 and 3 of four: flow 1 from the prompt, g from the question and from earlier steps: 2 g / (1 + 2 g)."""
    flow = result.analysis.flow
    into_last = flow[(flow["layer"] == 2) & (flow["step"] == 3) & (flow["source"] == "question")]
    g = into_last.set_index("instance")["value"]
    share = grounded_share(result.analysis)
    pd.testing.assert_series_equal(share.sort_index(), (2 * g / (1 + 2 * g)).sort_index(), check_names=False)


def test_methods_fix_break_or_keep_an_answer(result: Results) -> None:
    ids = result.statistics["instance"][:4].tolist()
    correct = {"pt": [True, True, False, False], "dpc": [True, False, True, False]}
    rows = [(method, i, c) for method, values in correct.items() for i, c in zip(ids, values, strict=True)]
    instances = pd.DataFrame(rows, columns=["method", "instance", "correct"]).assign(fired=True)
    table = measures(replace(result, instances=instances))
    assert table.columns.tolist() == list(COLUMNS)
    assert table.loc[ids, "dpc"].tolist() == [0, -1, 1, 0]
    assert table.loc[ids, "correct"].tolist() == correct["pt"]
    assert table[["random", "always", "own_ratio", "harmed"]].isna().all(axis=None)


def test_statistics_are_logarithms(result: Results) -> None:
    table, stats = measures(result), result.statistics.set_index("instance")
    for column, source in (("log_flow", "deep_flow"), ("log_row_share", "row_share"), ("log_length", "length")):
        np.testing.assert_allclose(table[column], np.log(stats[source][table.index]), err_msg=column)
    share = grounded_share(result.analysis)[table.index]
    np.testing.assert_allclose(table["grounded"], np.log(share / (1 - share)), rtol=1e-6)
    assert (table["n_steps"] == 4).all()
    right = result.instances.pivot_table("correct", "instance", "method", aggfunc="first").loc[table.index]
    assert (table["harmed"] == 1).tolist() == (right["instruct"] & ~right["pt"]).tolist()


def test_accumulation_on_the_question_by_hand() -> None:
    """Shallow layer 0 of three: 0.1, 0.2, 0.6 of the question; token 0, the sink, does not count."""
    shares = [0.1, 0.2, 0.6]
    rows = [("a", layer, j, 1.0, share if layer == 0 else 9.0) for layer in range(3) for j, share in enumerate(shares)]
    accumulation = pd.DataFrame(rows, columns=["instance", "layer", "virtual_token", "value", "into_question"])
    analysis = replace(analysis_of([("a", 2, "prompt", pd.NA, 1, 1.0)]), accumulation=accumulation)
    row = pd.DataFrame(accumulation_measures(analysis, pd.Series({"a": 2.0}), Options())).loc["a"]
    assert row["question_peak"] == pytest.approx(np.log(0.6 / 0.4))
    assert row["question_evenness"] == pytest.approx(-(np.log(1 / 4) / 4 + 3 * np.log(3 / 4) / 4) / np.log(2))
    assert row["peak_over_chance"] == pytest.approx(np.log(2)), "equal tokens have a chance level of 1"


def test_problems_without_a_rationale_have_answers_only(result: Results) -> None:
    table = measures(replace(result, statistics=result.statistics.iloc[:100]))
    assert table[["dpc", "correct"]].notna().all(axis=None)
    assert table["late_share"].notna().sum() == 100


def test_own_ratio_is_the_log_of_trained_over_untrained(result: Results) -> None:
    rows = [("story-0", "trained", 3.0), ("story-0", "untrained", 1.5), ("story-0", "text", 9.0)]
    controls = pd.DataFrame(rows, columns=["instance", "condition", "peak_ratio"])
    ratio = measures(result, controls)["own_ratio"]
    assert ratio["story-0"] == pytest.approx(np.log(2))
    assert ratio.drop("story-0").isna().all()
